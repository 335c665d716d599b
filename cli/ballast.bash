# SPDX-License-Identifier: Apache-2.0
# bash completion for ballast
_ballast() {
  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} command=${COMP_WORDS[1]}
  local common='--cluster --json --help'
  if [ "$COMP_CWORD" -eq 1 ]; then
    mapfile -t COMPREPLY < <(compgen -W 'run check submit resume wait jobs status logs cancel priority predict keygen bench --help --version' -- "$cur")
    return
  fi
  if [ "$command" = bench ] && [ "$COMP_CWORD" -eq 2 ]; then
    mapfile -t COMPREPLY < <(compgen -W 'codec --help' -- "$cur")
    return
  fi
  case $prev in
    --cluster | --model | --out | --keep) mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    --kernels) mapfile -t COMPREPLY < <(compgen -W 'scalar avx2 avx512 auto' -- "$cur"); return ;;
    --kind) mapfile -t COMPREPLY < <(compgen -W 'idx csv libsvm npy' -- "$cur"); return ;;
    --state) mapfile -t COMPREPLY < <(compgen -W 'queued starting running recovering finishing done failed cancelled active ended' -- "$cur"); return ;;
  esac
  case $cur in
    -*)
      case $command in
        run) common="--servers --workers --set --cluster-set --keep --json --help" ;;
        check) common="--set --json --help" ;;
        submit) common="$common --follow --set --priority" ;;
        resume) common="$common --follow --set --epochs" ;;
        jobs) common="$common --all --state --name --user --since --limit" ;;
        logs) common="$common --follow" ;;
        predict) common="--model --kind --out --json --help" ;;
        bench) common="--size --codec --kernels --rounds --json --help" ;;
        keygen) common="--out --replace --json --help" ;;
      esac
      mapfile -t COMPREPLY < <(compgen -W "$common" -- "$cur")
      ;;
    *)
      case $command in
        wait | logs | cancel | jobs | status | priority | resume)
          mapfile -t COMPREPLY < <(compgen -W "$(ballast jobs --json 2>/dev/null | grep -o '"job":[0-9]*' | cut -d: -f2)" -- "$cur")
          ;;
        *) mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
      esac
      ;;
  esac
}
complete -F _ballast ballast
