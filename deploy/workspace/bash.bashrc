# Read by every interactive shell before ~/.bashrc, which may change all of it.

# History is written at each prompt: it survives a container that is stopped or replaced.
HISTFILE=$HOME/.bash_history
HISTSIZE=10000
HISTFILESIZE=20000
HISTCONTROL=ignoreboth
shopt -s histappend checkwinsize
PROMPT_COMMAND='history -a'

# "~/workspace (main) $" instead of a container's number.
if [ -r /usr/lib/git-core/git-sh-prompt ]; then . /usr/lib/git-core/git-sh-prompt; fi
if declare -F __git_ps1 >/dev/null; then
    PS1='\[\e[1;34m\]\w\[\e[0;33m\]$(__git_ps1 " (%s)")\[\e[0m\] \$ '
else
    PS1='\[\e[1;34m\]\w\[\e[0m\] \$ '
fi
if [ -r /usr/share/bash-completion/bash_completion ]; then . /usr/share/bash-completion/bash_completion; fi
if [ -d "$HOME/.local/bin" ]; then PATH=$HOME/.local/bin:$PATH; fi
