#!/bin/bash
# How a far machine begins: mounts what it has, waits until its cable is plugged in, and becomes systemd.
#   boot.sh DISK IMAGE SHARED TREE PREFIX BASE_PREFIX HOSTNAME
# stdout says "there"; stdin says "go".
set -euo pipefail
disk=$1 image=$2 shared=$3 tree=$4 prefix=$5 base=$6 name=$7 root=$1/root

mount -t overlay overlay -o "lowerdir=$image:/,upperdir=$disk/upper,workdir=$disk/work" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 run "$root/run"
mount -t tmpfs -o mode=1777 tmp "$root/tmp"

mount -t tmpfs -o mode=755 dev "$root/dev"
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$root/dev/pts"
mount -t tmpfs -o mode=1777 shm "$root/dev/shm"
for device in null zero full random urandom tty; do
    : >"$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
for number in 0:stdin 1:stdout 2:stderr; do ln -s "/proc/self/fd/${number%:*}" "$root/dev/${number#*:}"; done

# open_way FOLDER: services that are not root get there
open_way() {
    local folder=$1
    while [ "$folder" != / ]; do
        [ -w "$root$folder" ] && chmod a+rx "$root$folder"
        folder=$(dirname "$folder")
    done
}

# read_only FROM TO
read_only() {
    mkdir -p "$2"
    mount --bind "$1" "$2"
    mount -o remount,bind,ro "$2"
}

# The tests' own tree is not on the machine; the Python and the packages that the stand-ins run on are.
stand_in=$root/usr/local/lib/stand-in
mkdir -p "$stand_in/shared" "$root$tree"
mount --bind "$shared" "$stand_in/shared"
read_only "$tree" "$stand_in/tree"
open_way "$(dirname "$tree")"
mount -t tmpfs -o mode=755 hidden "$root$tree"
read_only "$prefix" "$root$prefix"
read_only "$prefix" "$stand_in/prefix" # for services that see no /tmp, where the tree may lie
if [ "$base" != /usr ]; then
    read_only "$base" "$root$base"
    open_way "$(dirname "$base")"
fi

echo there
read -r _
exec 1>&2
hostname "${name%%.*}"
echo "${name%%.*}" >"$root/etc/hostname"
exec env -i container=far PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    chroot "$root" /lib/systemd/systemd --log-target=journal-or-kmsg --show-status=no </dev/null
