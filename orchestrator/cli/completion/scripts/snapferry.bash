# bash completion for snapferry. Written by: snapferry completion bash
#
# It runs the snapferry of the PATH, which answers within 1.5 seconds or not at all.

_snapferry() {
    local kind value text width=0 folder=
    local -a values=() texts=()
    COMPREPLY=()
    while IFS=$'\t' read -r kind value text; do
        case $kind in
        plain)
            values+=("$value")
            texts+=("$text")
            ((${#value} > width)) && width=${#value}
            ;;
        path)
            values+=("$value")
            texts+=("")
            [[ $value == */ ]] && folder=1
            ;;
        dir) compopt -o dirnames 2>/dev/null ;;
        file) compopt -o default 2>/dev/null ;;
        esac
    done < <(
        _SNAPFERRY_COMPLETE=bash_complete _SNAPFERRY_LINE=${COMP_LINE:0:COMP_POINT} _SNAPFERRY_WORD=$2 \
            command snapferry </dev/null 2>/dev/null
    )
    # A directory in a snapshot goes on: no space behind it.
    [[ -n $folder && ${#values[@]} -eq 1 ]] && compopt -o nospace 2>/dev/null
    # 63 is a question mark: bash lists the values and inserts nothing, so there is room for what they mean.
    if ((COMP_TYPE == 63 && ${#values[@]} > 1)); then
        for value in "${!values[@]}"; do
            printf -v text '%-*s  %s' "$width" "${values[value]}" "${texts[value]:+(${texts[value]})}"
            COMPREPLY+=("$text")
        done
    else
        COMPREPLY=(${values[@]+"${values[@]}"})
    fi
}

complete -o nosort -F _snapferry snapferry 2>/dev/null || complete -F _snapferry snapferry
