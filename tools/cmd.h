/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmd.h - the commands of gatherfs, and what they share.
 *
 * A command is a table entry: its name, what it takes, its help, and a function. The shared
 * options come from gf_option_table, so every command that reads a SOURCE takes all of
 * them, as --config-from DIR and as -o config_from=DIR. A command that fails returns -errno
 * and its one line of text; main() prints it and turns the code into an exit code.
 */
#ifndef GF_TOOLS_CMD_H
#define GF_TOOLS_CMD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/text.h"
#include "snapshot/options.h"
#include "snapshot/run.h"
#include "snapshot/snapshot.h"

#define GF_MAX_FLAGS 16
#define GF_MAX_WORDS 2

/* An option of one command alone. */
struct gf_flag {
    const char *key; /* "jobs" */
    char letter;     /* 'j', or 0 */
    const char *arg; /* "N"; NULL for switches */
    const char *help;
};

struct gf_args;

struct gf_cmd {
    const char *name, *words, *summary; /* "cat", "SOURCE PATH", "write one file's bytes" */
    int min_words, max_words;
    bool shared; /* takes the options of gf_option_table, -o and -v */
    struct gf_flag flags[GF_MAX_FLAGS]; /* ends with key == NULL */
    const char *details;                /* lines for --help: how it behaves, examples */
    int (*run)(struct gf_args *args, struct gf_err *err);
};

extern const struct gf_cmd gf_cmd_mount, gf_cmd_umount, gf_cmd_inspect, gf_cmd_export,
    gf_cmd_cat, gf_cmd_verify, gf_cmd_status, gf_cmd_plan, gf_cmd_snapshot, gf_cmd_doctor;

struct gf_args {
    const struct gf_cmd *cmd;
    struct gf_options opt;
    char *fuse_opts;                /* libfuse's own -o keys, or NULL */
    const char *word[GF_MAX_WORDS]; /* what is not an option; NULL where there is none */
    int nwords;
    const char *flag[GF_MAX_FLAGS]; /* the value ("" for switches), NULL if not given */
    bool help;
};

/* argv without the command's name. */
int gf_args_parse(const struct gf_cmd *cmd, int argc, char **argv, struct gf_args *ret,
                  struct gf_err *err);
void gf_args_done(struct gf_args *args);

/* The value of one of the command's flags: "" for a switch, NULL if it was not given. */
const char *gf_args_flag(const struct gf_args *args, const char *key);

/* Whole numbers in [min, max]; `what` names it in the error: "--jobs". */
int gf_parse_number(const char *what, const char *text, uint64_t min, uint64_t max,
                    uint64_t *ret, struct gf_err *err);

/* The word of `words` (n of them) that `word` may be a misspelling of, or NULL. */
const char *gf_nearest(const char *word, const char *const *words, size_t n);

/* A SOURCE, and the directory that a mount of it would show at its root. */
struct gf_opened {
    struct gf_run *run, *owned; /* owned: closed with it */
    char *path; /* of the checkpoint in a run: "" is the root, else its newest step */
    struct gf_snapshot *snapshot;
    bool pinned;  /* files deleted meanwhile stay readable */
    bool entered; /* of a live job: the step is there, and stays */
    const struct gf_vdir *dir;
};

/* Fails where the root would hold no weights, naming the views there are. */
int gf_opened_open(const char *source, const struct gf_options *opt, struct gf_opened *ret,
                   struct gf_err *err);
/* The same of a run that is open, and stays so: of a live job, the step now. */
int gf_opened_take(struct gf_run *run, struct gf_opened *ret, struct gf_err *err);
void gf_opened_close(struct gf_opened *opened);

/* What the reader of a checkpoint found odd, on stderr: for commands that have succeeded.
 */
void gf_print_warnings(const struct gf_snapshot *snapshot);

/* The text of a mount's own .gatherfs/NAME. ENOENT and ENOTDIR: it is no mount. */
int gf_read_ctl(const char *mountpoint, const char *name, struct gf_text *ret,
                struct gf_err *err);

/* Writes all of it to a descriptor. */
int gf_write_all(int fd, const void *buf, size_t len);

#endif
