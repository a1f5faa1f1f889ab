"""Print a script that completes ``vq`` in a shell: ``eval "$(vq completion bash)"``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from vq.cli import arguments
from vq.cli.errors import command

ONLY_PRINTS = True

EXAMPLES = """
examples:
  vq completion bash >> ~/.bashrc                                 bash: every new shell; now: eval "$(vq completion bash)"
  vq completion zsh >> ~/.zshrc                                   zsh, after compinit
  vq completion fish > ~/.config/fish/completions/vq.fish         fish

Completed are commands, flags, configs, options of the typed CONFIG as KEY=, their values, runs and checkpoints.
"""

BASH = r"""
_vq() {
    local IFS=$'\n' word line current='' glue='' count=0
    local -a words=()
    for word in "${COMP_WORDS[@]:1:COMP_CWORD}"; do  # bash splits words at = and :
        if [[ $count -gt 0 && ( -n $glue || $word == [=:]* ) ]]; then
            words[count-1]+=$word
        else
            words[count]=$word; count=$((count + 1))
        fi
        case $word in *[=:]) glue=1 ;; *) glue='' ;; esac
    done
    [[ $count -gt 0 ]] || words=('')
    current=${words[${#words[@]}-1]}
    local typed=${COMP_WORDS[COMP_CWORD]} kept=''
    case $typed in [=:]*) typed='' ;; esac
    kept=${current%"$typed"}  # bash replaces only the part behind the last sign
    COMPREPLY=()
    while IFS= read -r line; do
        line=${line%%$'\t'*}
        case $line in
            :files) COMPREPLY+=( $(compgen -f -- "$typed") ); compopt -o filenames 2>/dev/null ;;
            :dirs) COMPREPLY+=( $(compgen -d -- "$typed") ); compopt -o filenames 2>/dev/null ;;
            *=|*/) COMPREPLY+=( "${line#"$kept"}" ); compopt -o nospace 2>/dev/null ;;
            ?*) COMPREPLY+=( "${line#"$kept"}" ) ;;
        esac
    done < <(vq __complete "${words[@]}" 2>/dev/null)
}
complete -F _vq vq
"""

ZSH = r"""
#compdef vq
_vq() {
    local line word
    local -a found open
    for line in "${(@f)$(vq __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}"; do
        word=${line%%$'\t'*}
        case $word in
            ('') ;;
            (:files) _files ;;
            (:dirs) _files -/ ;;
            (*[=/]) open+=("$word") ;;
            (*) found+=("$word") ;;
        esac
    done
    (( $#open )) && compadd -S '' -- "${open[@]}"
    (( $#found )) && compadd -- "${found[@]}"
}
compdef _vq vq
"""

FISH = r"""
function __vq_complete
    set -l typed (commandline -ct)
    for line in (vq __complete (commandline -opc)[2..-1] "$typed" 2>/dev/null)
        switch $line
            case ':files'
                __fish_complete_path "$typed"
            case ':dirs'
                __fish_complete_directories "$typed"
            case '*'
                echo $line
        end
    end
end
complete -c vq -f -a '(__vq_complete)'
"""
SCRIPTS = {'bash': BASH, 'zsh': ZSH, 'fish': FISH}


def make_parser() -> argparse.ArgumentParser:
    parser = arguments.parser('vq.completion', 'Print a script that completes vq in a shell.')
    parser.epilog = EXAMPLES
    parser.add_argument('shell', choices=tuple(SCRIPTS), metavar='SHELL', help=', '.join(SCRIPTS))
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    options = arguments.parse(make_parser(), argv)
    print(SCRIPTS[options.shell].strip())
    return 0
