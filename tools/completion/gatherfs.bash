# SPDX-License-Identifier: Apache-2.0
# bash completion for gatherfs; the options are asked of the program itself.
_gatherfs()
{
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
    local commands='mount umount inspect export cat verify status plan snapshot doctor' command= word

    COMPREPLY=()
    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        case " $commands " in *" $word "*) command=$word; break ;; esac
    done
    case $prev in
    --dtype)
        COMPREPLY=($(compgen -W 'auto stored float32 bfloat16 float16' -- "$cur"))
        return ;;
    --names)
        COMPREPLY=($(compgen -W 'hub module' -- "$cur"))
        return ;;
    --view)
        COMPREPLY=($(compgen -W 'full raw adapter base' -- "$cur"))
        return ;;
    esac
    case $cur in
    -*)
        COMPREPLY=($(compgen -W "$(gatherfs ${command:+$command} --help 2>/dev/null |
            grep -oE '(^|[ ,])--?[a-z][a-z-]*' | tr -d ' ,')" -- "$cur")) ;;
    *)
        [ -n "$command" ] || COMPREPLY=($(compgen -W "$commands" -- "$cur"))
        COMPREPLY+=($(compgen -f -- "$cur")) ;;
    esac
}
complete -o filenames -F _gatherfs gatherfs
