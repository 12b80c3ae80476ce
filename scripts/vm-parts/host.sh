# shellcheck shell=bash disable=SC2154 # $cache, $run, $parts, $machine, $cmdline, $accel are scripts/vm's
# Host side of scripts/vm, sourced by it: what a VM is made of (tools, kernel, busybox, accelerator), kept in $cache.

# Inserted in this order. A module that is not there is built into the kernel.
readonly modules=(virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk virtio_console overlay)

prepare_host() {
    [[ $(uname -m) == x86_64 ]] || die "this needs an x86-64 host, not $(uname -m)"
    mkdir -p "$cache"
    # What a killed run left behind.
    find "$cache" -maxdepth 1 -name 'run.*' -mmin +1440 -exec rm -rf {} +
    exec {lock}>"$cache/lock"
    flock "$lock" # two first runs at the same time: one prepares, the other waits
    install_tools
    [[ -x $cache/busybox ]] || fetch_busybox
    kernel=$cache/kernel${debian:+-$debian} apt_options=()
    if [[ $debian ]]; then
        prepare_debian
    else
        [[ -d $kernel ]] || fetch_kernel
    fi
    build_initramfs
    [[ $accel != auto ]] || accel=$(working_accel)
    exec {lock}>&-
}

install_tools() {
    local packages=()
    command -v qemu-system-x86_64 >/dev/null || packages+=(qemu-system-x86)
    command -v mke2fs >/dev/null || packages+=(e2fsprogs)
    ((${#packages[@]} == 0)) || install_packages "${packages[@]}"
}

install_packages() {
    local packages=("$@")
    local install=(apt-get -y -qq -o DPkg::Lock::Timeout=300 install --no-install-recommends "${packages[@]}")
    command -v apt-get >/dev/null || die "missing: ${packages[*]} (Debian's names); install them and try again"
    ((EUID == 0)) || die "missing: ${packages[*]}; install them with: sudo apt-get install ${packages[*]}"
    say "installing ${packages[*]}"
    DEBIAN_FRONTEND=noninteractive "${install[@]}" >"$run/apt.log" 2>&1 && return
    { apt-get -qq update && DEBIAN_FRONTEND=noninteractive "${install[@]}"; } >"$run/apt.log" 2>&1 ||
        die "can't install ${packages[*]}: $(tail -n 1 "$run/apt.log")"
}

# Unpacked, never installed: needs no root and changes nothing on the host.
unpack_package() { # PACKAGE FOLDER
    command -v apt-get >/dev/null || die "the guest is made of Debian packages ($1), and there is no apt-get here"
    mkdir -p "$run/package" "$2"
    if ! (cd "$run/package" && apt-get -qq "${apt_options[@]}" download "$1") >"$run/apt.log" 2>&1; then
        die "can't download the package $1: $(tail -n 1 "$run/apt.log")"
    fi
    dpkg -x "$run"/package/"$1"_*.deb "$2"
}

# A fresh machine, or an image that was made small, has no package lists.
refresh_package_lists() { # PACKAGE that must be known
    [[ -z $(apt-cache -q=2 "${apt_options[@]}" show "$1" 2>/dev/null) ]] || return 0
    ((EUID == 0)) || die "apt doesn't know the package $1; refresh its lists with: sudo apt-get update"
    apt-get -qq "${apt_options[@]}" update >"$run/apt.log" 2>&1 || die "apt-get update failed: $(tail -n 1 "$run/apt.log")"
}

fetch_busybox() {
    refresh_package_lists busybox-static
    unpack_package busybox-static "$run/busybox"
    mv "$(find "$run/busybox" -name busybox -type f -perm /u+x | head -n 1)" "$cache/busybox"
}

# linux-image-cloud-amd64 is a metapackage: its dependency is the kernel. `rm -r target/vm` gets a newer one.
fetch_kernel() {
    refresh_package_lists linux-image-cloud-amd64
    local package module file
    package=$(apt-cache "${apt_options[@]}" depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
    [[ $package ]] || die "apt knows no package linux-image-cloud-amd64: is this Debian with its main archive?"
    say "unpacking $package"
    unpack_package "$package" "$run/unpacked"
    mkdir -p "$run/kernel/modules"
    mv "$run"/unpacked/boot/vmlinuz-* "$run/kernel/vmlinuz"
    for module in "${modules[@]}"; do
        file=$(find "$run/unpacked" -name "$module.ko*")
        case $file in
        *.ko) mv "$file" "$run/kernel/modules/" ;;
        *.ko.xz) "$cache/busybox" unxz -c "$file" >"$run/kernel/modules/$module.ko" ;; # Debian 13
        '') ;;
        *) die "don't know how to unpack $file" ;;
        esac
    done
    mv -T "$run/kernel" "$kernel"
}

# Built at each run: it takes 20 ms, and is never stale.
build_initramfs() {
    local root=$run/initramfs
    mkdir -p "$root"/{bin,dev,proc,lower,upper,root}
    cp "$cache/busybox" "$root/bin/"
    cp -r "$kernel/modules" "$root/"
    printf '%s\n' "${modules[@]}" >"$root/modules/order"
    cp "$parts/initramfs" "$root/init"
    (cd "$root" && find . | "$cache/busybox" cpio -o -H newc -R 0:0) >"$run/initramfs.cpio" 2>/dev/null
}

# /dev/kvm may open and still run no guest: only a boot that ends proves it. Remembered until the host boots again.
working_accel() {
    local known
    known=$cache/accel-$(</proc/sys/kernel/random/boot_id)
    if [[ ! -s $known ]]; then
        rm -f "$cache"/accel-*
        if [[ -w /dev/kvm ]] && kvm_boots; then echo kvm; else echo tcg; fi >"$known.new"
        mv "$known.new" "$known"
    fi
    cat "$known"
}

kvm_boots() {
    timeout --kill-after=1 8 qemu-system-x86_64 "${machine[@]}" -accel kvm -cpu host -m 256M \
        -no-reboot -kernel "$kernel/vmlinuz" -initrd "$run/initramfs.cpio" -append "$cmdline vm.probe" \
        -serial "file:$run/probe.log" </dev/null >/dev/null 2>&1 &&
        grep -q 'vm probe: booted' "$run/probe.log"
}
