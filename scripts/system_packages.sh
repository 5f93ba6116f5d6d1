#!/bin/sh
# Debian's packages that the tests need: PostgreSQL, an SSH server, rsync, faketime. Installs what is
# missing where it may; else says what is missing and goes on, for most tests need none of it.
set -eu

missing=""
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null 2>&1 ||
    missing="$missing postgresql"
[ -x /usr/sbin/sshd ] || missing="$missing openssh-server"
command -v rsync >/dev/null 2>&1 || missing="$missing rsync"
command -v faketime >/dev/null 2>&1 || missing="$missing faketime"
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "missing for some tests:$missing (as root: apt-get install$missing)" >&2
    exit 0
fi

echo "installing$missing" >&2
# Only the programs are wanted: no server is started, and PostgreSQL makes no cluster of its own.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
fi
install="apt-get install -qq -y --no-install-recommends -o Dpkg::Options::=--force-confold"
export DEBIAN_FRONTEND=noninteractive
if ! { apt-get update -qq && case "$missing" in *postgresql*)
    $install postgresql-common >/dev/null &&
        sed -i 's/^#\?create_main_cluster.*/create_main_cluster = false/' \
            /etc/postgresql-common/createcluster.conf ;; esac &&
    $install $missing >/dev/null; }; then
    echo "could not install$missing; some tests will say so" >&2
fi
