#!/bin/sh
# Prepares a machine to build and run Faultline. Safe to run again at any time: it changes only what is not
# right yet, and asks for root only then.
#
# There are two ways to the compiler: the distribution's packages, where they are new enough (Debian 12 and
# later), or rustup. The rest is QEMU, its UEFI firmware, a C linker, gdb, and valgrind for the benchmarks.
set -eu
cd "$(dirname "$0")"
here=$(pwd -P)

rust=1.96
toolchain=1.96.0 # as in rust-toolchain.toml
components="rust-src llvm-tools rustfmt clippy"
target=x86_64-unknown-none
rust_packages="rustc-web cargo-web rust-web-src rustfmt-web rust-web-clippy"
system_packages="gcc libc6-dev qemu-system-x86 ovmf valgrind gdb"

say() { echo "setup: $*"; }
fail() {
    echo "setup: $*" >&2
    exit 1
}
has() { command -v "$1" >/dev/null 2>&1; }

# --- Who does what: packages need root, rustup belongs to the owner of this checkout. ---

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif has sudo; then
        sudo "$@"
    else
        fail "root is needed and there is no sudo; as root, run: $*"
    fi
}

owner=$(stat -c %U . 2>/dev/null || id -un)
owner_home=$HOME
if [ "$(id -u)" = 0 ] && [ "$owner" != root ] && id "$owner" >/dev/null 2>&1; then
    owner_home=$(getent passwd "$owner" | cut -d: -f6)
else
    owner=$(id -un)
fi

as_owner() {
    if [ "$owner" = "$(id -un)" ]; then
        "$@"
    else
        runuser -u "$owner" -- env HOME="$owner_home" PATH="$owner_home/.cargo/bin:$PATH" "$@"
    fi
}

rustup=$(as_owner sh -c 'command -v rustup || true')
if [ -z "$rustup" ] && [ -x "$owner_home/.cargo/bin/rustup" ]; then
    rustup=$owner_home/.cargo/bin/rustup
fi

# --- Debian's packages ---

installed_version() { dpkg-query -W -f '${Version}' "$1" 2>/dev/null || true; }

missing_packages() {
    for package in "$@"; do
        case $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true) in
        installed) ;;
        *) printf '%s ' "$package" ;;
        esac
    done
}

updated=
update_lists() {
    if [ -z "$updated" ]; then
        say "updating the package lists"
        as_root apt-get update -q || say "not all package lists could be updated; going on with what there is"
        updated=yes
    fi
}

install_packages() {
    missing=$(missing_packages "$@")
    if [ -z "$missing" ]; then
        return
    fi
    update_lists
    say "installing $missing"
    # shellcheck disable=SC2086 # a list of names
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing ||
        fail "could not install: $missing"
}

is_new_enough() { [ -n "$1" ] && dpkg --compare-versions "$1" ge "$rust"; }

candidate_version() {
    version=$(LC_ALL=C apt-cache policy "$1" 2>/dev/null | sed -n 's/^ *Candidate: //p')
    [ "$version" = "(none)" ] || echo "$version"
}

# The newest LLVM whose linker and tools are installed, or else can be.
llvm_version() {
    for version in 22 23 21 20 19; do
        if [ -z "$(missing_packages "lld-$version" "llvm-$version")" ]; then
            echo "$version"
            return
        fi
    done
    for version in 22 23 21 20 19; do
        if [ -n "$(candidate_version "lld-$version")" ] && [ -n "$(candidate_version "llvm-$version")" ]; then
            echo "$version"
            return
        fi
    done
    fail "there are no packages lld-22 and llvm-22 (or near versions) for this system"
}

# link TARGET NAME: makes the link unless it is right already.
link() {
    if [ "$(readlink "$2" 2>/dev/null || true)" != "$1" ]; then
        say "linking $2 to $1"
        as_root mkdir -p "$(dirname "$2")"
        as_root ln -sfn "$1" "$2"
    fi
}

# Debian's compiler has no linker and no binary tools where Rust looks for them.
setup_rust_packages() {
    # shellcheck disable=SC2086 # a list of names
    install_packages $rust_packages
    llvm=$(llvm_version)
    install_packages "lld-$llvm" "llvm-$llvm"
    bin=/usr/lib/llvm-$llvm/bin
    link "$bin/lld" /usr/local/bin/rust-lld
    tools=/usr/lib/rustlib/$(/usr/bin/rustc -vV | sed -n 's/^host: //p')/bin
    link "$bin/llvm-objcopy" "$tools/llvm-objcopy"
    link "$bin/llvm-objdump" "$tools/llvm-objdump"
    has rust-lld || fail "/usr/local/bin is not in your PATH; run: export PATH=/usr/local/bin:\$PATH"

    if [ -z "$rustup" ]; then
        return
    fi
    # rustup's cargo comes first in PATH and would insist on the toolchain of rust-toolchain.toml.
    if ! as_owner "$rustup" toolchain list -v | grep -Eq '^debian[[:space:]](.*[[:space:]])?/usr$'; then
        say "making the packaged compiler known to rustup as 'debian'"
        as_owner "$rustup" toolchain link debian /usr
    fi
    if ! as_owner "$rustup" override list | sed -n 's/[[:space:]]*debian[[:space:]]*$//p' | grep -Fxq "$here"; then
        say "choosing the toolchain 'debian' for this checkout"
        as_owner "$rustup" override set debian --path "$here" >/dev/null
    fi
}

# --- rustup ---

rustup_is_ready() {
    [ -n "$rustup" ] || return 1
    sysroot=$(as_owner "$rustup" run "$toolchain" rustc --print sysroot 2>/dev/null) || return 1
    host=$(as_owner "$rustup" run "$toolchain" rustc -vV | sed -n 's/^host: //p')
    [ -d "$sysroot/lib/rustlib/$target/lib" ] && [ -d "$sysroot/lib/rustlib/src/rust/library" ] &&
        [ -x "$sysroot/lib/rustlib/$host/bin/llvm-objcopy" ] &&
        [ -x "$sysroot/bin/cargo-clippy" ] && [ -x "$sysroot/bin/rustfmt" ]
}

setup_rustup() {
    if rustup_is_ready; then
        return
    fi
    say "installing the Rust toolchain $toolchain by rustup"
    # shellcheck disable=SC2046,SC2086 # lists of names
    as_owner "$rustup" toolchain install "$toolchain" --profile minimal --target "$target" \
        $(printf -- '--component %s ' $components) ||
        fail "rustup could not install the toolchain $toolchain (see above)"
}

no_rustup="Rust $toolchain is needed and neither a package for it nor rustup is here. Install rustup: \
curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh
setup: then open a new shell and run ./setup.sh again."

# --- The two kinds of systems ---

setup_debian() {
    # shellcheck disable=SC2086 # a list of names
    install_packages $system_packages
    if is_new_enough "$(installed_version rustc-web)"; then
        setup_rust_packages
        return
    fi
    if rustup_is_ready; then
        return
    fi
    update_lists
    if is_new_enough "$(candidate_version rustc-web)"; then
        setup_rust_packages
        return
    fi
    if [ -z "$rustup" ] && [ -n "$(candidate_version rustup)" ]; then
        install_packages rustup
        rustup=$(command -v rustup)
    fi
    [ -n "$rustup" ] || fail "$no_rustup"
    setup_rustup
}

has_ovmf() {
    for file in /usr/share/ovmf/OVMF.fd /usr/share/OVMF/OVMF.fd /usr/share/edk2/x64/OVMF.4m.fd \
        /usr/share/edk2-ovmf/x64/OVMF.fd /usr/share/edk2/ovmf/OVMF.fd /usr/share/qemu/ovmf-x86_64.bin; do
        [ -f "$file" ] && return 0
    done
    [ -f "${FAULTLINE_OVMF:-}" ]
}

setup_elsewhere() {
    lacking=
    if [ -n "$rustup" ]; then
        setup_rustup
    else
        say "missing: $no_rustup"
        lacking=yes
    fi
    if has dnf; then
        install="sudo dnf install" qemu=qemu-system-x86-core ovmf=edk2-ovmf
    elif has pacman; then
        install="sudo pacman -S" qemu=qemu-system-x86 ovmf=edk2-ovmf
    elif has zypper; then
        install="sudo zypper install" qemu=qemu-x86 ovmf=qemu-ovmf-x86_64
    else
        install="install with your system's packages:" qemu=qemu-system-x86_64 ovmf=OVMF
    fi
    has qemu-system-x86_64 || { say "missing: QEMU; $install $qemu" && lacking=yes; }
    has_ovmf || { say "missing: UEFI firmware for --uefi; $install $ovmf" && lacking=yes; }
    has gdb || { say "missing: gdb, for --gdb and its tests; $install gdb" && lacking=yes; }
    has cc || { say "missing: a C compiler as linker; $install gcc" && lacking=yes; }
    [ -z "$lacking" ] || fail "install what is named above and run ./setup.sh again"
}

# --- Is what `cargo` means in this folder now right? ---

check_cargo() {
    as_owner sh -c 'command -v cargo' >/dev/null ||
        fail "cargo is not in your PATH; open a new shell, or run: . \"\$HOME/.cargo/env\""
    version=$(as_owner cargo --version 2>&1) || fail "cargo does not work in this folder: $version"
    number=$(echo "$version" | sed -n 's/^cargo \([0-9]*\)\.\([0-9]*\).*/\1 \2/p')
    # shellcheck disable=SC2086 # two numbers
    set -- ${number:-0 0}
    if [ "$1" -gt "${rust%.*}" ] || { [ "$1" -eq "${rust%.*}" ] && [ "$2" -ge "${rust#*.}" ]; }; then
        return
    fi
    if [ -n "${RUSTUP_TOOLCHAIN:-}" ]; then
        fail "RUSTUP_TOOLCHAIN=$RUSTUP_TOOLCHAIN stands in the way ($version); run: unset RUSTUP_TOOLCHAIN"
    fi
    fail "$(as_owner sh -c 'command -v cargo') comes first in your PATH and is too old ($version);" \
        "run: export PATH=/usr/bin:\$PATH"
}

[ "$(uname -s)" = Linux ] || fail "Faultline is built and run on Linux"
if has apt-get && has dpkg-query; then
    setup_debian
else
    setup_elsewhere
fi
check_cargo
say "ready: cargo run, or cargo test"
