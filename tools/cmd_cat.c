/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmd_cat.c - one file's bytes to stdout, as a mount of SOURCE would give them.
 *
 * Ranges are HTTP's: A-B with both ends included, A- to the end, -N the last N bytes.
 */
#include "base/math.h"
#include "base/text.h"
#include "snapshot/report.h"
#include "snapshot/sweep.h"
#include "tools/cmd.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define CHUNK ((size_t)1 << 20)

static int bad_range(const char *text, struct gf_err *err)
{
    return gf_fail(err, EINVAL, "--range: '%s' is not A-B, A- or -N in bytes", text);
}

/* [*ret_off, *ret_end) of a file of `size` bytes. What lies past the end is left out. */
static int parse_range(const char *text, uint64_t size, uint64_t *ret_off,
                       uint64_t *ret_end, struct gf_err *err)
{
    unsigned long long a = 0, b = UINT64_MAX;
    const char *dash = strchr(text, '-');
    char *end;

    errno = 0;
    if (!dash || (dash == text && !dash[1]))
        return bad_range(text, err);
    if (dash != text) {
        a = strtoull(text, &end, 10);
        if (!isdigit((unsigned char)*text) || end != dash)
            return bad_range(text, err);
    }
    if (dash[1]) {
        b = strtoull(dash + 1, &end, 10);
        if (!isdigit((unsigned char)dash[1]) || *end)
            return bad_range(text, err);
    }
    if (errno)
        return bad_range(text, err);
    if (dash == text) {
        *ret_off = size - GF_MIN(size, (uint64_t)b);
        *ret_end = size;
        return 0;
    }
    if (a > b)
        return gf_fail(err, EINVAL, "--range: '%s' ends before it starts", text);
    if (a >= size)
        return gf_fail(err, EINVAL,
                       "--range: '%s' starts past the end, the file has %llu bytes", text,
                       (unsigned long long)size);
    *ret_off = a;
    *ret_end = b >= size ? size : b + 1;
    return 0;
}

static int write_out(const void *buf, size_t len, struct gf_err *err)
{
    int r = gf_write_all(STDOUT_FILENO, buf, len);

    return r ? gf_fail(err, -r, "cannot write the output: %s", strerror(-r)) : 0;
}

static int write_file(const struct gf_vdir *dir, const struct gf_vfile *file,
                      const char *range, struct gf_err *err)
{
    struct gf_scratch scratch = { 0 };
    uint64_t off = 0, end = file->size;
    GF_AUTO_MEM uint8_t *buf = malloc(CHUNK);
    int r = buf ? 0 : gf_nomem(err);

    if (!r && range)
        r = parse_range(range, file->size, &off, &end, err);
    while (!r && off < end) {
        size_t len = (size_t)GF_MIN((uint64_t)CHUNK, end - off);

        r = gf_sweep_read(dir, file, off, len, buf, &scratch, err);
        if (!r)
            r = write_out(buf, len, err);
        off += len;
    }
    gf_scratch_done(&scratch);
    return r;
}

static int write_text(struct gf_text *text, const char *range, struct gf_err *err)
{
    uint64_t off = 0, end = text->len;
    int r = text->failed ? gf_nomem(err) : 0;

    if (!r && range)
        r = parse_range(range, text->len, &off, &end, err);
    if (!r)
        r = write_out(text->s + off, (size_t)(end - off), err);
    return r;
}

/* The files of .gatherfs/ that do not need a mount: PATH behind ".gatherfs/". */
static int write_control(struct gf_run *source, const char *path, const char *range,
                         struct gf_err *err)
{
    static const char provenance[] = "provenance/", suffix[] = ".json";
    GF_AUTO(gf_snapshot) snapshot = NULL;
    const struct gf_vfile *file;
    const struct gf_vdir *dir;
    struct gf_text text = { 0 };
    size_t len = strlen(path);
    int r;

    if (!strcmp(path, "status.json")) {
        gf_text_add(&text, "{");
        r = gf_report_status(source, &text, err);
        gf_text_add(&text, "}\n");
    } else if (!strncmp(path, provenance, strlen(provenance)) && len > strlen(suffix) &&
               !strcmp(path + len - strlen(suffix), suffix)) {
        GF_AUTO_MEM char *name =
            strndup(path + strlen(provenance), len - strlen(provenance) - strlen(suffix));

        r = name ? gf_run_find(source, name, &snapshot, &dir, &file, err) : gf_nomem(err);
        if (!r)
            r = gf_report_provenance(dir, file, &text, err);
    } else {
        r = gf_fail(err, ENOENT,
                    "no '.gatherfs/%s' without a mount, there is status.json and "
                    "provenance/FILE.json",
                    path);
    }
    if (!r)
        r = write_text(&text, range, err);
    gf_text_done(&text);
    return r;
}

static int run(struct gf_args *args, struct gf_err *err)
{
    static const char control[] = ".gatherfs/";
    const char *path = args->word[1], *range = gf_args_flag(args, "range");
    GF_AUTO(gf_snapshot) snapshot = NULL;
    GF_AUTO(gf_run) source = NULL;
    const struct gf_vfile *file;
    const struct gf_vdir *dir;
    int r = gf_run_open(args->word[0], &args->opt, &source, err);

    if (r)
        return r;
    while (*path == '/')
        path++;
    if (!strncmp(path, control, strlen(control)))
        return write_control(source, path + strlen(control), range, err);
    r = gf_run_find(source, path, &snapshot, &dir, &file, err);
    if (!r && file->weights)
        r = gf_snapshot_enter(snapshot, 0, NULL, NULL, err);
    if (!r)
        r = write_file(dir, file, range, err);
    if (!r && dir->warning && file->weights)
        fprintf(stderr, "gatherfs: warning: view '%s': %s\n", dir->name, dir->warning);
    return r;
}

const struct gf_cmd gf_cmd_cat = {
    .name = "cat",
    .words = "SOURCE PATH",
    .summary = "write one file's bytes to standard output",
    .min_words = 2,
    .max_words = 2,
    .shared = true,
    .flags = { { "range", 0, "A-B",
                 "only bytes A to B, both included; A- and -N as in HTTP" } },
    .details =
        "PATH is as in a mount of SOURCE with the same options.\n"
        "\n"
        "Examples:\n"
        "  gatherfs cat /data/run/ckpt config.json\n"
        "  gatherfs cat --range 0-7 /data/run/ckpt model.safetensors | xxd\n"
        "  gatherfs cat /data/run/ckpt raw/model.safetensors > raw.safetensors\n"
        "  gatherfs cat /data/run/ckpt .gatherfs/provenance/model.safetensors.json\n",
    .run = run,
};
