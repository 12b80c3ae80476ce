# shellcheck shell=bash disable=SC2154,SC2034 # $cache, $run, $parts, $debian are scripts/vm's, and $debian_image, $apt_options for it
# Host side of scripts/vm --debian, sourced by it: a whole Debian as a disk image, made of that suite's packages, kept in
# $cache. The packages come from wherever this machine's own apt gets Debian's, whatever suites it has itself.

# minbase has what every Debian has; a server also has logins of its own, and sudo.
readonly debian_packages=systemd-sysv,dbus,udev,libpam-systemd,dbus-user-session,adduser,init-system-helpers,sudo,procps

prepare_debian() {
    ((EUID == 0)) || die "--debian needs root, to make the files of a whole system"
    select_suite
    [[ -d $kernel ]] || fetch_kernel
    # Made anew when what is put into it has changed.
    local image
    image=$cache/debian-$debian-$(cat "$parts"/debian.sh "$parts"/debian/* | sha256sum | head -c 12).img
    [[ -e $image ]] || fetch_debian "$image"
    debian_image=$image
}

# Lists, sources and downloads of that suite's own, beside the machine's.
select_suite() {
    local dir=$cache/apt-$debian uri signed=''
    uri=$(debian_uri)
    if [[ ! $uri ]]; then
        apt-get -qq update >"$run/apt.log" 2>&1 || die "apt-get update failed: $(tail -n 1 "$run/apt.log")"
        uri=$(debian_uri)
    fi
    [[ $uri ]] || die "apt has no source of Debian's own here: is this Debian?"
    [[ ! -e /usr/share/keyrings/debian-archive-keyring.gpg ]] || signed='[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] '
    mkdir -p "$dir"/{lists,archives}/partial
    echo "deb $signed$uri $debian main" >"$dir/sources.list"
    apt_options=(-o "Dir::Etc::SourceList=$dir/sources.list" -o Dir::Etc::SourceParts=- -o "Dir::State::Lists=$dir/lists"
        -o "Dir::Cache=$dir" -o APT::Sandbox::User=root)
}

# shellcheck disable=SC2016 # apt-get replaces it
debian_uri() {
    apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' | head -n 1
}

fetch_debian() { # IMAGE
    local root=$run/debian
    command -v mmdebstrap >/dev/null || install_packages mmdebstrap
    say "making a Debian $debian of its packages"
    mmdebstrap --quiet --variant=minbase --mode=root --include="$debian_packages" "$debian" "$root" \
        "$cache/apt-$debian/sources.list" >"$run/mmdebstrap.log" 2>&1 ||
        die "mmdebstrap failed: $(tail -n 3 "$run/mmdebstrap.log")"
    echo vm >"$root/etc/hostname"
    echo '127.0.0.1 localhost vm' >"$root/etc/hosts"
    : >"$root/etc/resolv.conf"
    : >"$root/etc/machine-id"
    useradd --root "$root" --uid 1001 --create-home --shell /bin/bash alice
    echo "alice ALL=(ALL) NOPASSWD: ALL" >"$root/etc/sudoers.d/alice"
    install -D -m 0755 -t "$root/usr/local/lib/vm" "$parts/debian/run"
    install -m 0644 -t "$root/etc/systemd/system" "$parts/debian/vm.service"
    ln -s ../vm.service "$root/etc/systemd/system/multi-user.target.wants/vm.service"
    # Nobody logs in there, and its messages would stand among the console's.
    ln -s /dev/null "$root/etc/systemd/system/serial-getty@ttyS0.service"
    rm -f "$cache/debian-$debian"-*.img
    mke2fs -q -t ext4 -d "$root" "$run/debian.img" 3G >/dev/null || die "mke2fs can't make the disk"
    rm -rf "$root"
    mv "$run/debian.img" "$1"
}
