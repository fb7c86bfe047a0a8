# fish completion for snapferry. Written by: snapferry completion fish
#
# It runs the snapferry of the PATH, which answers within 1.5 seconds or not at all.

function __snapferry_complete
    set -lx _SNAPFERRY_COMPLETE fish_complete
    set -lx _SNAPFERRY_LINE (commandline -cp)
    command snapferry </dev/null 2>/dev/null | while read -l line
        set -l parts (string split \t -- $line)
        switch "$parts[1]"
            case plain
                printf '%s\t%s\n' $parts[2] "$parts[3]"
            case path
                # fish quotes it, and adds no space behind a slash.
                printf '%s\n' $parts[2]
            case dir
                __fish_complete_directories "$parts[2]" ''
            case file
                __fish_complete_path "$parts[2]" ''
        end
    end
end

complete --command snapferry --no-files --arguments '(__snapferry_complete)'
