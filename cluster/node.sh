# The environment of a node: ~/.bashrc reads this file, so that `python -m search.run ...` and
# `ray status` are all that has to be typed, and Ray's commands find the same settings.
export PATH="$HOME/cgan-venv/bin:$PATH"
export RAY_AUTH_MODE=token          # nobody without ~/.ray/auth_token is heard
export RAY_USAGE_STATS_ENABLED=0
export CGAN_CACHE_DIR=/shared/cache # data are fetched once, not by every node
case $- in *i*) cd "$HOME/cgan-search" || true ;; esac
