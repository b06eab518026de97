# Sourced by scripts/vm-devices and scripts/vm-limits: a virtual machine with Debian's kernel over this machine's own
# files, which it sees read-only, so that nothing here is changed. Needs
#   apt install qemu-system-x86 busybox-static kmod cpio udev
# Its kernel is kept in PEERD_VM (~/.cache/peerd-vm; 300 MB). Sets repository, python and share, the folder that the
# guest sees as /mnt/share; leaves the shell in a folder of the machine's own.
skip() { echo "skipped: $*" >&2; exit 77; }
export PATH="$PATH:/usr/sbin:/sbin"

# vm_prepare NAME: look for what is needed, fetch the kernel, make the folder of the machine of that name.
vm_prepare() {
    for tool in qemu-system-x86_64 busybox modprobe depmod cpio apt-get dpkg-deb; do
        command -v "$tool" >/dev/null || skip "there is no $tool (apt install qemu-system-x86 busybox-static kmod cpio udev)"
    done
    [ "$(uname -m)" = x86_64 ] || skip "the guest is an x86-64 machine"
    scripts/setup dev
    repository=$PWD
    python=$(realpath -s "${PEERD_VENV:-.venv}/bin/python")
    vm_folder=${PEERD_VM:-${XDG_CACHE_HOME:-$HOME/.cache}/peerd-vm}
    mkdir -p "$vm_folder"
    cd "$vm_folder"
    local package folder wanted
    package=$(apt-cache depends linux-image-amd64 | awk '/Depends: linux-image/ { print $2; exit }')
    [ -n "$package" ] || skip "apt knows no linux-image-amd64"
    release=${package#linux-image-}
    wanted=(boot "lib/modules/$release/modules.*")
    for folder in crypto lib fs net drivers/net drivers/usb drivers/virtio drivers/char drivers/tty; do
        wanted+=("lib/modules/$release/kernel/$folder/*")
    done
    if [ "$(cat "kernel/.$release" 2>/dev/null)" != "${wanted[*]}" ]; then
        rm -rf kernel fetched
        mkdir kernel fetched
        (cd fetched && apt-get -qq -o APT::Sandbox::User=root download "$package") || skip "apt cannot download $package"
        dpkg-deb --fsys-tarfile fetched/*.deb | tar -x -C kernel --wildcards "${wanted[@]/#/./}"
        rm -rf fetched
        depmod -b kernel "$release"
        echo "${wanted[*]}" >"kernel/.$release"
    fi
    rm -rf "$1"
    mkdir -p "$1"/initrd/{bin,proc,sys,dev,lower,upper,new} "$1/share"
    cd "$1"
    share=$PWD/share
    vm_modules initrd/modules virtio_pci 9pnet_virtio 9p overlay
    cp "$(command -v busybox)" initrd/bin/
}

# vm_modules FOLDER NAME...: these and what they need, and the order to load them in.
vm_modules() {
    local into=$1
    shift
    mkdir -p "$into"
    for name in "$@"; do modprobe -d "$vm_folder/kernel" -S "$release" --show-depends "$name"; done |
        awk '$1 == "insmod" && !seen[$2]++ { print $2 }' |
        while read -r file; do cp "$file" "$into/" && basename "$file"; done >"$into/order"
}

# vm_run SECONDS MEGABYTES CPUS THREADS PARAMETERS: boot, its processors on as many of ours (THREADS multi) or on one
# (single). What to do there is read from stdin, as a shell does it; what that writes to /mnt/share/answer is printed,
# and how it ended is how this script ends.
vm_run() {
    local status=0
    cat >initrd/init <<'INIT'
#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc p /proc; $b mount -t sysfs s /sys; $b mount -t devtmpfs d /dev
while read -r module; do $b insmod /modules/$module; done </modules/order
options=trans=virtio,version=9p2000.L,cache=loose,msize=262144
$b mount -t 9p -o $options,ro host /lower
$b mount -t tmpfs t /upper; $b mkdir /upper/files /upper/work
$b mount -t overlay -o lowerdir=/lower,upperdir=/upper/files,workdir=/upper/work o /new
for folder in proc sys dev; do $b mount --move /$folder /new/$folder; done
$b mount -t tmpfs r /new/run; $b mkdir -p /new/mnt/share
$b mount -t 9p -o trans=virtio,version=9p2000.L share /new/mnt/share
exec $b switch_root /new /bin/sh /mnt/share/boot.sh
INIT
    chmod +x initrd/init
    (cd initrd && find . | cpio -oH newc --quiet | gzip -1) >initrd.gz
    cat >share/boot.sh <<'BOOT'
exec 2>/mnt/share/log; export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
ip link set lo up
mkdir -p /dev/pts /dev/shm; mount -t devpts d /dev/pts; mount -t tmpfs s /dev/shm
sh /mnt/share/guest.sh
echo $? >/mnt/share/code; sync; echo o >/proc/sysrq-trigger; sleep 9
BOOT
    cat >share/guest.sh
    # Without KVM, which not every machine has: the figures are those of a slow computer.
    timeout "${PEERD_VM_SECONDS:-$1}" qemu-system-x86_64 -M q35 -accel tcg,thread="$4" -cpu max -m "$2" -smp "$3" \
        -kernel "$vm_folder/kernel/boot/vmlinuz-$release" -initrd initrd.gz \
        -append "console=ttyS0 quiet mitigations=off panic=-1 $5" \
        -virtfs local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap \
        -virtfs local,path=share,mount_tag=share,security_model=none -nic none -nographic -no-reboot \
        </dev/null >qemu.log 2>&1 || status=$?
    [ "$status" = 0 ] || echo "the machine ended with $status; see $PWD/qemu.log" >&2
    [ -e share/code ] || { tail -20 share/log qemu.log >&2 || true; exit 1; }
    [ "$(cat share/code)" = 0 ] || tail -40 share/log >&2
    cat share/answer
    exit "$(cat share/code)"
}
