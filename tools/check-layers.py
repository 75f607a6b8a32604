#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Hold the source tree against src/LAYERS.

    check-layers.py [--root DIR] [--build DIR]
    check-layers.py --self-test

Checks that
- every #include "dir/x.h" in src/, fs/ and tools/ is allowed by the folder's line in src/LAYERS,
  whose entries are folders (base) or single headers (source/dir.h), and names a file that exists;
- libraries are included only where they belong: <fuse_lowlevel.h> in fs/, <cjson/cJSON.h> in
  src/base/json.c;
- no C file or header there is longer than 700 lines;
- every src/*/x.c has tests/unit/test_x.c, or a line "dir/x.c reason" in tests/unit/EXEMPT;
- with --build, the objects of folders marked "pure" call nothing that does I/O (nm -u).
Prints one line for each violation and ends with 1 if there are any.
"""
import argparse
import os
import re
import subprocess
import sys
import tempfile

MAX_LINES = 700
LIBRARY_HOMES = {"fuse": "fs/", "cjson/": "src/base/json.c",
                 "pcre2": "src/base/regex.c"}
IO_SYMBOLS = set(
    """open open64 openat openat64 creat creat64 read pread pread64 readv preadv preadv64 write
    pwrite pwrite64 writev close mmap mmap64 munmap fopen fopen64 fdopen freopen fread fwrite
    fgets fgetc getline getdelim fputs fputc puts putchar printf fprintf vprintf vfprintf
    __printf_chk __fprintf_chk __vfprintf_chk perror stat stat64 fstat fstat64 lstat lstat64
    fstatat fstatat64 statx access faccessat readlink readlinkat realpath opendir fdopendir
    readdir readdir64 scandir unlink unlinkat rename mkdir rmdir socket connect accept send recv
    sendmsg recvmsg ioctl fcntl fcntl64 pipe fork execve system popen syscall nanosleep sleep
    usleep getenv""".split()
)


def read(path):
    with open(path, encoding="utf-8") as f:
        return f.read()


def layers(root):
    """folder -> (allowed folders and headers, pure)"""
    table = {}
    for line in read(os.path.join(root, "src/LAYERS")).splitlines():
        line = line.split("#")[0].strip()
        if line:
            folder, _, allowed = line.partition(":")
            words = allowed.split()
            table[folder.strip()] = ({w for w in words if w != "pure"}, "pure" in words)
    return table


def sources(root):
    """(folder of the table, path relative to root) of each C file"""
    for top in ("src", "fs", "tools"):
        for where, _, names in os.walk(os.path.join(root, top)):
            folder = os.path.relpath(where, os.path.join(root, top if top == "src" else "."))
            for name in sorted(names):
                if name.endswith((".c", ".h")):
                    yield folder, os.path.relpath(os.path.join(where, name), root)


def check_includes(root, table):
    for folder, path in sources(root):
        if folder not in table:
            yield f"{path}: folder '{folder}' has no line in src/LAYERS"
            continue
        for number, line in enumerate(read(os.path.join(root, path)).splitlines(), 1):
            m = re.match(r'\s*#\s*include\s+(["<])([^">]+)', line)
            if not m:
                continue
            here, header = f"{path}:{number}", m[2]
            if m[1] == "<":
                for prefix, home in LIBRARY_HOMES.items():
                    if header.startswith(prefix) and not path.startswith(home):
                        yield f"{here}: <{header}> belongs to {home} only"
                continue
            owner = os.path.dirname(header)
            if owner != folder and owner not in table[folder][0] and header not in table[folder][0]:
                yield f"{here}: {folder} may not include '{header}'"
            if not any(os.path.exists(os.path.join(root, top, header)) for top in ("src", "")):
                yield f"{here}: there is no '{header}'"


def check_lengths(root):
    for _, path in sources(root):
        n = read(os.path.join(root, path)).count("\n")
        if n > MAX_LINES:
            yield f"{path}: {n} lines, at most {MAX_LINES}"


def check_tests(root):
    exempt = {}
    path = os.path.join(root, "tests/unit/EXEMPT")
    if os.path.exists(path):
        for line in read(path).splitlines():
            if line.strip() and not line.startswith("#"):
                name, _, reason = line.partition(" ")
                exempt[name] = reason.strip()
    for _, path in sources(root):
        if not path.startswith("src/") or not path.endswith(".c"):
            continue
        name = path.removeprefix("src/")
        test = f"tests/unit/test_{os.path.basename(path)}"
        tested = os.path.exists(os.path.join(root, test))
        if name in exempt:
            if not exempt[name]:
                yield f"tests/unit/EXEMPT: '{name}' has no reason"
            if tested:
                yield f"tests/unit/EXEMPT: '{name}' has a test after all"
            for other in re.findall(r"\btest_\w+\.c\b", exempt[name]):
                if not os.path.exists(os.path.join(root, "tests/unit", other)):
                    yield f"tests/unit/EXEMPT: '{name}': there is no '{other}'"
        elif not tested:
            yield f"{path}: no {test} and no line in tests/unit/EXEMPT"
    for name in exempt:
        if not os.path.exists(os.path.join(root, "src", name)):
            yield f"tests/unit/EXEMPT: there is no 'src/{name}'"


def check_objects(build, table):
    for folder, (_, pure) in table.items():
        if not pure:
            continue
        where = os.path.join(build, "src", f"libgf_{folder}.a.p")
        objects = [n for n in os.listdir(where) if n.endswith(".o")] if os.path.isdir(where) else []
        if not objects:
            yield f"{where}: no objects of the pure folder '{folder}'"
        for name in objects:
            out = subprocess.run(
                ["nm", "-u", os.path.join(where, name)], capture_output=True, text=True, check=True
            ).stdout
            used = {line.split()[-1].split("@")[0] for line in out.splitlines() if line.strip()}
            for symbol in sorted(used & IO_SYMBOLS):
                yield f"{folder}/{name}: calls {symbol}, but '{folder}' does no I/O"


def check(root, build=None):
    table = layers(root)
    found = [*check_includes(root, table), *check_lengths(root), *check_tests(root)]
    return found + (list(check_objects(build, table)) if build else [])


# ---------------------------------------------------------------- does it fail when it should?

GOOD = {
    "src/LAYERS": "base:\nview: base source/dir.h  pure\ntools: base\n",
    "src/base/err.h": "",
    "src/source/dir.h": "",
    "src/base/err.c": '#include "base/err.h"\n',
    "src/view/view.c": '#include "base/err.h"\n#include "source/dir.h"\n',
    "tests/unit/test_err.c": "",
    "tests/unit/EXEMPT": "view/view.c tested with the whole\n",
}
BROKEN = {
    "an upward include": {"src/base/err.c": '#include "view/view.h"\n', "src/view/view.h": ""},
    "a header beside the allowed one": {
        "src/view/view.c": '#include "source/mem.h"\n',
        "src/source/mem.h": "",
    },
    "a library out of place": {"src/view/view.c": "#include <fuse_lowlevel.h>\n"},
    "cJSON out of place": {"src/view/view.c": "#include <cjson/cJSON.h>\n"},
    "a long file": {"src/base/err.h": "\n" * (MAX_LINES + 1)},
    "no test": {"tests/unit/EXEMPT": ""},
    "no reason": {"tests/unit/EXEMPT": "view/view.c\n"},
    "a reason that is gone": {"tests/unit/EXEMPT": "view/view.c in test_gone.c\n"},
    "a stale exemption": {"tests/unit/EXEMPT": "view/view.c x\nview/gone.c x\n"},
    "a folder without a line": {"src/other/o.h": ""},
    "a missing header": {"src/base/err.c": '#include "base/gone.h"\n'},
}


def make_tree(root, files):
    for path, text in files.items():
        path = os.path.join(root, path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)


def found_in_objects(root, code):
    build = os.path.join(root, "build")
    where = os.path.join(build, "src/libgf_view.a.p")
    make_tree(root, {"build/src/libgf_view.a.p/x.c": code})
    source, target = os.path.join(where, "x.c"), os.path.join(where, "x.o")
    subprocess.run([os.environ.get("CC", "cc"), "-c", source, "-o", target], check=True)
    return check(root, build)


def self_test():
    failed = []
    with tempfile.TemporaryDirectory() as root:
        # the tree as it should be still has a folder of headers that no line speaks of
        make_tree(root, GOOD | {"src/LAYERS": GOOD["src/LAYERS"] + "source:\n"})
        failed += [f"the good tree: {line}" for line in check(root)]
        if found_in_objects(root, "int f(int x) { return x; }\n"):
            failed.append("a pure object was refused")
        if not found_in_objects(root, "int getenv(void); int f(void) { return getenv(); }\n"):
            failed.append("not noticed: an object that does I/O")
    for name, change in BROKEN.items():
        with tempfile.TemporaryDirectory() as root:
            make_tree(root, GOOD | {"src/LAYERS": GOOD["src/LAYERS"] + "source:\n"} | change)
            if not check(root):
                failed.append(f"not noticed: {name}")
    return failed


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--root", default=os.path.join(os.path.dirname(__file__), ".."))
    ap.add_argument("--build", help="build directory, to look at its objects")
    ap.add_argument("--self-test", action="store_true", help="check this program itself")
    args = ap.parse_args()
    found = self_test() if args.self_test else check(args.root, args.build)
    for line in found:
        print(line)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
