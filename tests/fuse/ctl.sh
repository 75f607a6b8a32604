#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# .gatherfs/: not listed, parses, tells the truth, and can be copied.
. "$(dirname "$0")/lib.sh"
need python3

mount_it -o threads=3
! ls -A "$MNT" | grep -q gatherfs || fail ".gatherfs is listed"
ctl=$MNT/.gatherfs
[ "$(ls -A "$ctl" | tr '\n' ' ')" = "metrics provenance stats.json status.json " ] || fail "$(ls "$ctl")"
[ "$(ls -A "$ctl/provenance")" = model.safetensors.json ] || fail "$(ls "$ctl/provenance")"
cat "$MNT/model.safetensors" >/dev/null
python3 - "$MNT" "$SRC" "$PID" <<'PYTHON' || fail "what it tells"
import json, os, re, sys

mnt, src, pid = sys.argv[1:]
ctl = mnt + "/.gatherfs/"
status = json.load(open(ctl + "status.json"))
assert status["source"] == src and status["complete"] == "yes" and status["step"] == 2
mount = status["mount"]
assert mount["pid"] == int(pid) and mount["mountpoint"] == mnt and mount["errors"] == 0
assert mount["options"]["threads"] == 3 and mount["uptime_s"] >= 0 and mount["log"] == []

with open(mnt + "/config.json") as held:
    stats = json.load(open(ctl + "stats.json"))
    assert stats["open_files"] == 1, stats  # made when stats.json was opened: not counted yet
    assert stats["reads"] >= 1 and stats["bytes"] >= os.stat(mnt + "/model.safetensors").st_size

# Prometheus text format: each sample under its own HELP and TYPE
seen = {}
for line in open(ctl + "metrics").read().splitlines():
    if m := re.fullmatch(r"# (HELP|TYPE) (gatherfs_[a-z_]+) (.+)", line):
        seen.setdefault(m[2], []).append(m[1])
        assert m[1] == "HELP" or m[3] in ("counter", "gauge"), line
    else:
        m = re.fullmatch(r'(gatherfs_[a-z_]+)(\{[a-z]+="[^"]*"\})? ([0-9.]+)', line)
        assert m and seen.get(m[1]) == ["HELP", "TYPE"], line
        assert m[1].endswith("_total") or m[1] in (
            "gatherfs_open_files", "gatherfs_nodes", "gatherfs_uptime_seconds", "gatherfs_info"), line
assert len(seen) >= 8

for view, want in (("", "full"), ("raw/", "raw"), ("full/", "full")):
    size = os.stat(f"{mnt}/{view}model.safetensors").st_size
    prov = json.load(open(f"{ctl}provenance/{view}model.safetensors.json"))
    assert prov["view"] == want and prov["size"] == size, prov
    at = 0
    for r in prov["ranges"]:
        assert r["offset"] == at, r
        at += r["length"]
        if r["source"]:
            assert r["source_offset"] + r["source_length"] <= os.stat(f"{src}/{r['source']}").st_size
    assert at == size
for name in ("config.json.json", "nothing.json", "model.safetensors", "raw/raw"):
    assert not os.path.exists(ctl + "provenance/" + name), name
PYTHON
# Sizes are right, so that copies are whole.
cp "$ctl/provenance/model.safetensors.json" "$WORK/copy"
cmp "$WORK/copy" "$ctl/provenance/model.safetensors.json" || fail "cp"
[ "$(stat -c %s "$ctl/provenance/model.safetensors.json")" = "$(wc -c <"$WORK/copy")" ] || fail "st_size"
cp -r "$ctl" "$WORK/all" && python3 -m json.tool <"$WORK/all/status.json" >/dev/null || fail "cp -r"

"$GATHERFS" status | grep -qF "$SRC on $MNT" || fail "status does not list it"
"$GATHERFS" status --json "$MNT" | python3 -m json.tool >/dev/null || fail "status MOUNTPOINT"
unmount_it
