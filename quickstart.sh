#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# From a fresh Debian 12 to a trained model: installs what is needed, builds, and runs the main job.
#   ./quickstart.sh            everything
#   ./quickstart.sh --deps     only install what is needed
#   ./quickstart.sh --build    only install and build
set -euo pipefail
cd "$(dirname "$0")"
top=$PWD
build=${BALLAST_BUILD_DIR:-$top/build}

packages=(
  autoconf automake gcc libc6-dev make pkg-config
  libzmq3-dev libuv1-dev libprotobuf-c-dev protobuf-c-compiler protobuf-compiler libopenblas-pthread-dev
  libyaml-dev libmicrohttpd-dev libjansson-dev libsqlite3-dev libsystemd-dev libxxhash-dev libsodium-dev zlib1g-dev
  libzstd-dev
  check
)

say() { printf '\n==> %s\n' "$*"; }

missing_packages() {
  local p
  for p in "$@"; do
    dpkg-query -W -f='${db:Status-Status}\n' "$p" 2>/dev/null | grep -qx installed || printf '%s\n' "$p"
  done
}

install_packages() {
  local missing sudo=()
  mapfile -t missing < <(missing_packages "$@")
  [ ${#missing[@]} -eq 0 ] && return 0
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || { echo "quickstart: these packages are missing and there is no sudo: ${missing[*]}" >&2; exit 1; }
    sudo=(sudo)
    say "Installing with sudo: ${missing[*]}"
  else
    say "Installing: ${missing[*]}"
  fi
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -qq
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

build_all() {
  say "Building in $build"
  [ -x configure ] || ./autogen.sh >/dev/null
  mkdir -p "$build"
  cd "$build"
  read -ra configure_args <<<"${BALLAST_CONFIGURE_ARGS:-}"
  [ -f Makefile ] || "$top/configure" "${configure_args[@]}" >/dev/null
  make -s -j"$(nproc)" >/dev/null
  cd "$top"
}

run_main_job() {
  say "Drawing the digits data set (12,000 training and 2,000 test pictures)"
  "$build/ballast-digits" --out "$top/conf/jobs/data/digits"
  say "Training: 1 coordinator, 2 servers, 2 workers, each a process of its own"
  PATH=$build:$PATH ballast run "$top/conf/jobs/digits.yaml" --servers 2 --workers 2 --set "output=$build/models/digits"
}

case ${1:-} in
  --deps) install_packages "${packages[@]}" ;;
  --build) install_packages "${packages[@]}"; build_all ;;
  --help|-h) sed -n '4,7s/^# \{0,1\}//p' "$0" ;;
  "") install_packages "${packages[@]}"; build_all; run_main_job ;;
  *) echo "quickstart: unknown option $1 (see --help)" >&2; exit 2 ;;
esac
