#!/bin/bash
# Process 1 of one host of the lab, in network, PID, mount, UTS and IPC namespaces of its own:
# makes a file system of its own, waits for the network, then serves ssh and reaps orphans.
#   host_init.sh NAME LAB_FOLDER [READABLE_FOLDER...]
set -euo pipefail
name=$1 lab=$2
shift 2

# All that this host writes goes to memory and dies with it; below is the machine's own root.
mount -t tmpfs -o mode=755 tmpfs "$lab/mount"
root=$lab/mount/root
mkdir "$lab/mount/upper" "$lab/mount/work" "$root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$lab/mount/upper,workdir=$lab/mount/work" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount --rbind /dev "$root/dev"
mount -t devpts -o newinstance,ptmxmode=0666,mode=0600 devpts "$root/dev/pts"
mount --bind "$root/dev/pts/ptmx" "$root/dev/ptmx"
mount -t tmpfs tmpfs "$root/dev/shm"
for own in tmp run root var/tmp; do
    mkdir -p "$root/$own"
    mount -t tmpfs -o mode=1777 tmpfs "$root/$own"
done
chmod 700 "$root/root"
mkdir -p "$root/run/sshd" "$root/shared" "$root/lab"
mount --bind "$lab/shared" "$root/shared"
mount --bind "$lab/files" "$root/lab"
mount -o remount,bind,ro "$root/lab"
for folder in "$@"; do
    mkdir -p "$root$folder"
    mount --bind "$folder" "$root$folder"
    mount -o remount,bind,ro "$root$folder"
done
cp "$lab/files/hosts" "$root/etc/hosts"
: >"$root/etc/resolv.conf" # a look-up of an unknown name fails at once
hostname "$name"
cd "$root"
pivot_root . .
umount -l .
cd /

export HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
echo mounted
read -r _ # until the network is there
/usr/sbin/sshd -D -e -f /lab/sshd_config &
until (exec 3<>/dev/tcp/127.0.0.1/22) 2>/dev/null; do sleep 0.05; done
echo ready
# For ever: a line comes when the lab closes, the end of the pipe when the test is gone.
read -r _ || true
