#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Checks the include graph of the sources against tests/layers.conf: arrows point down, each third-party
# library has one door, nothing outside tests/ includes test code.
set -euo pipefail
set -f # patterns of the table are for [[ ]], not for the shell
cd "${BL_TOP_SRCDIR:-.}"
conf=tests/layers.conf
bad=0
complain() { echo "$*"; bad=1; }

declare -A allowed
declare -A doors
while read -r line; do
  case $line in
    '' | '#'*) ;;
    door\ *) read -r _ header files <<<"$line"; doors[$header]=$files ;;
    *:*) allowed[${line%%:*}]=" ${line#*:} " ;;
  esac
done <"$conf"

layer_of() { # path of a source file -> layer
  case $1 in
    common/*) cut -d/ -f1-2 <<<"$1" ;;
    *) cut -d/ -f1 <<<"$1" ;;
  esac
}

check_internal() { # file layer include
  local target
  case $3 in
    tests/*) complain "$1 includes test code: $3"; return ;;
    cli/* | server/* | coordinator/* | worker/* | client/*) target=${3%%/*} ;;
    proto/* | config.h) return ;;
    */*) target=${3%%/*}; case $2 in "common/$target") return ;; worker) case $target in data | nn | train) return ;; esac ;; esac ;;
    *) return ;;
  esac
  [ "$target" = "$2" ] && return
  [[ ${allowed[$2]} == *" $target "* ]] || complain "$1 ($2) may not include $3"
}

while IFS=: read -r file include; do
  layer=$(layer_of "$file")
  [ -n "${allowed[$layer]+x}" ] || { complain "$file: layer $layer is not in $conf"; continue; }
  check_internal "$file" "$layer" "$include"
done < <(grep -rHoE --include='*.[ch]' '^#include "[^"]+"' common client server coordinator worker cli | sed 's/#include "\(.*\)"/\1/')

while IFS=: read -r file include; do
  for header in "${!doors[@]}"; do
    [ "$include" = "$header" ] || continue
    ok=0
    for pattern in ${doors[$header]}; do
      # shellcheck disable=SC2053 # the right side is a pattern
      [[ $file == $pattern ]] && ok=1
    done
    [ $ok = 1 ] || complain "$file includes <$header>: its door is ${doors[$header]}"
  done
done < <(grep -rHoE --include='*.[ch]' '^#include [<"][^>"]+[>"]' common client server coordinator worker cli | sed 's/#include [<"]\(.*\)[>"]/\1/')

[ $bad = 0 ] && echo "include graph agrees with $conf"
exit $bad
