#!/usr/bin/env bash
# Installs LNbits from PyPI, for tests/real_lnbits.rs and whoever else wants a wallet to test with.
#
# usage: setup_lnbits.sh            prints, on stdout, the folder that `lnbits.sh` starts it from; all else goes to stderr
#
# Everything goes to one folder: $TOLLKEEPER_SERVICES/lnbits, or services/lnbits below cargo's target folder. Delete it to
# start over. Once it is there, this ends at once. Versions are pinned in requirements-lnbits.txt beside this file.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
services=${TOLLKEEPER_SERVICES:-${CARGO_TARGET_DIR:-$here/../../target}/services}
mkdir -p "$services/lnbits"
folder=$(cd "$services/lnbits" && pwd)

say() { printf 'tests/real/setup_lnbits.sh: %s\n' "$*" >&2; }
command -v python3 >/dev/null || { say 'python3 is needed: install Python 3.10 to 3.12'; exit 1; }

# Anything that would make the installed files differ makes the stamp differ.
stamp() {
    cat "$here/requirements-lnbits.txt" "$here/setup_lnbits.sh"
    python3 --version
    echo "$folder"
}
wanted=$(stamp | cksum)
installed() { [ "$(cat "$folder/stamp" 2>/dev/null)" = "$wanted" ]; }
if installed; then echo "$folder"; exit 0; fi

# Several test processes may ask at once: one installs, the others wait for it.
if command -v flock >/dev/null; then
    exec 9>"$folder/lock"
    flock -w 1200 9 || { say 'another installation does not end'; exit 1; }
    if installed; then echo "$folder"; exit 0; fi
fi

started=$SECONDS
rm -f "$folder/stamp"
say "LNbits and what it needs, to $folder/python (some minutes, once)"
rm -rf "$folder/python"
python3 -m venv "$folder/python" >&2 || { say 'python3 cannot make a venv'; exit 1; }
"$folder/python/bin/python" -m pip install --quiet --disable-pip-version-check --retries 2 --timeout 30 \
    --requirement "$here/requirements-lnbits.txt" >&2 || { say 'pip cannot install it; is there a network?'; exit 1; }

echo "$wanted" >"$folder/stamp"
say "done in $((SECONDS - started)) s"
echo "$folder"
