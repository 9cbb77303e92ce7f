#!/usr/bin/env bash
# Builds the release binary twice: once so that it counts which way its code goes, and, after a load of half a minute, once more with
# these counts (profile-guided optimisation). Frequent code is then laid out and inlined for being frequent; nothing else differs.
#
#   benches/guided.sh          writes target/guided/forebay
#   benches/guided.sh tool     tells which llvm-profdata it would use
#
# Needs llvm-profdata of the version that rustc is made with: rustup's component llvm-tools, or LLVM's package.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo=${CARGO:-cargo}
version=$(rustc -vV)
host=$(sed -n 's/^host: //p' <<<"$version")
llvm=$(sed -nE 's/^LLVM version: ([0-9]+).*/\1/p' <<<"$version")
home=$(realpath -m "${CARGO_TARGET_DIR:-target}/guided")
counts=$home/counts

profdata() {
    local found
    for found in "$(rustc --print sysroot)/lib/rustlib/$host/bin/llvm-profdata" "llvm-profdata-$llvm" llvm-profdata; do
        found=$(command -v "$found") || continue
        # Another version's tool does not know the format.
        if "$found" --version | grep -q "LLVM version $llvm\."; then
            echo "$found"
            return
        fi
    done
    echo "llvm-profdata of LLVM $llvm is missing: rustup component add llvm-tools, or apt-get install llvm-$llvm" >&2
    return 1
}

# With a target of its own, so that the flags do not reach build scripts and macros.
build() {
    RUSTFLAGS=$2 "$cargo" build ${CI:+--locked} --release --bin forebay --target "$host" --target-dir "$home/$1"
}

merge=$(profdata)
if [ "${1:-}" = tool ]; then
    echo "$merge"
    exit
fi
mkdir -p "$home"
build counting "-Cprofile-generate=$counts"
rm -rf "$counts"
LLVM_PROFILE_FILE="$counts/%p.profraw" FOREBAY="$home/counting/$host/release/forebay" python3 benches/compare/train.py
"$merge" merge -o "$home/merged.profdata" "$counts"
# Cargo does not see that the counts have changed.
rm -rf "$home/optimised"
build optimised "-Cprofile-use=$home/merged.profdata"
cp "$home/optimised/$host/release/forebay" "$home/forebay.new"
mv "$home/forebay.new" "$home/forebay"
echo "$home/forebay"
