/* SPDX-License-Identifier: Apache-2.0 */
/*
 * args.c - the command line of every command: --key value, --key=value, -o key=value,...
 *
 * Options and words may come in any order (mount(8) puts -o last); "--" ends the options.
 */
#include "tools/cmd.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/math.h"

#define KEY_MAX_LEN 64

struct cursor {
    int argc, at;
    char **argv;
};

/* ---------------------------------------------------------------- spelling */

static size_t distance(const char *a, const char *b)
{
    size_t row[KEY_MAX_LEN + 1], na = strlen(a), nb = strlen(b);

    if (na > KEY_MAX_LEN || nb > KEY_MAX_LEN)
        return SIZE_MAX;
    for (size_t j = 0; j <= nb; j++)
        row[j] = j;
    for (size_t i = 1; i <= na; i++) {
        size_t diagonal = row[0];

        row[0] = i;
        for (size_t j = 1; j <= nb; j++) {
            size_t change = diagonal + (a[i - 1] != b[j - 1]);

            diagonal = row[j];
            row[j] = GF_MIN(change, GF_MIN(row[j - 1], row[j]) + 1);
        }
    }
    return row[nb];
}

const char *gf_nearest(const char *word, const char *const *words, size_t n)
{
    size_t best = strlen(word) / 3 + 1; /* further away is another word, not a slip */
    const char *ret = NULL;

    for (size_t i = 0; i < n; i++) {
        size_t d = distance(word, words[i]);

        if (d <= best && d < strlen(words[i])) {
            ret = words[i];
            best = d ? d - 1 : 0;
        }
    }
    return ret;
}

/* "config_from" -> "config-from", as it is written on the command line. */
static void dashed(const char *key, char ret[static KEY_MAX_LEN])
{
    snprintf(ret, KEY_MAX_LEN, "%s", key);
    for (char *p = ret; *p; p++)
        if (*p == '_')
            *p = '-';
}

static int unknown_key(const struct gf_cmd *cmd, const char *key, struct gf_err *err)
{
    static char spelled[128][KEY_MAX_LEN];
    const char *known[GF_COUNT(spelled)], *near;
    char wanted[KEY_MAX_LEN];
    size_t n = 0;

    for (const struct gf_flag *f = cmd->flags; f->key; f++)
        dashed(f->key, spelled[n++]);
    for (const struct gf_option_info *o = gf_option_table;
         cmd->shared && o->key && n < GF_COUNT(spelled); o++)
        dashed(o->key, spelled[n++]);
    for (size_t i = 0; i < n; i++)
        known[i] = spelled[i];
    dashed(key, wanted);
    near = gf_nearest(wanted, known, n);
    if (near)
        return gf_fail(err, EINVAL, "unknown option '--%s', did you mean '--%s'?", key,
                       near);
    return gf_fail(err, EINVAL, "unknown option '--%s', see 'gatherfs %s --help'", key,
                   cmd->name);
}

/* ---------------------------------------------------------------- one option */

static int find_flag(const struct gf_cmd *cmd, const char *key, char letter)
{
    for (int i = 0; i < GF_MAX_FLAGS && cmd->flags[i].key; i++)
        if (key ? !strcmp(cmd->flags[i].key, key) : cmd->flags[i].letter == letter)
            return i;
    return -1;
}

/* The value behind "--key=" or "-o", else the next word; NULL with an error if none. */
static const char *value_of(struct cursor *c, const char *option, const char *inlined,
                            const char *arg, struct gf_err *err)
{
    if (inlined)
        return inlined;
    if (c->at < c->argc)
        return c->argv[c->at++];
    gf_fail(err, EINVAL, "'%s' needs a value: %s %s", option, option, arg);
    return NULL;
}

static int set_flag(struct gf_args *args, int i, struct cursor *c, const char *option,
                    const char *inlined, struct gf_err *err)
{
    const struct gf_flag *flag = &args->cmd->flags[i];

    if (!flag->arg && inlined)
        return gf_fail(err, EINVAL, "'%s' takes no value, found '%s'", option, inlined);
    args->flag[i] = flag->arg ? value_of(c, option, inlined, flag->arg, err) : "";
    return args->flag[i] ? 0 : -EINVAL;
}

static int set_long(struct gf_args *args, struct cursor *c, const char *option,
                    struct gf_err *err)
{
    const char *equals = strchr(option, '='), *inlined = equals ? equals + 1 : NULL,
               *value = NULL;
    const struct gf_option_info *info;
    GF_AUTO_MEM char *name =
        equals ? strndup(option, (size_t)(equals - option)) : strdup(option);
    char key[KEY_MAX_LEN];
    int i;

    if (!name)
        return gf_nomem(err);
    dashed(name + 2, key);
    if (!strcmp(key, "help")) {
        args->help = true;
        return 0;
    }
    i = find_flag(args->cmd, key, 0);
    if (i >= 0)
        return set_flag(args, i, c, name, inlined, err);
    info = args->cmd->shared ? gf_option_find(name + 2) : NULL;
    if (!info)
        return unknown_key(args->cmd, name + 2, err);
    if (!info->arg && inlined)
        return gf_fail(err, EINVAL, "'%s' takes no value, found '%s'", name, inlined);
    if (info->arg && !(value = value_of(c, name, inlined, info->arg, err)))
        return -EINVAL;
    return gf_options_set(&args->opt, info->key, value, err);
}

/* "-f", "-zv", "-oLIST", "-j4": letters together, the last may take a value. */
static int set_letters(struct gf_args *args, struct cursor *c, const char *letters,
                       struct gf_err *err)
{
    for (const char *p = letters; *p; p++) {
        char option[3] = { '-', *p, '\0' };
        const char *inlined = p[1] ? p + 1 : NULL, *value;
        int i = find_flag(args->cmd, NULL, *p);

        if (i >= 0 && args->cmd->flags[i].arg)
            return set_flag(args, i, c, option, inlined, err);
        if (i >= 0) {
            args->flag[i] = "";
        } else if (*p == 'h') {
            args->help = true;
        } else if (*p == 'v' && args->cmd->shared) {
            args->opt.verbose++;
        } else if (*p == 'o' && args->cmd->shared) {
            if (!(value = value_of(c, option, inlined, "KEY=VALUE,...", err)))
                return -EINVAL;
            return gf_options_set_list(&args->opt, value, &args->fuse_opts, err);
        } else {
            return gf_fail(err, EINVAL, "unknown option '%s', see 'gatherfs %s --help'",
                           option, args->cmd->name);
        }
    }
    return 0;
}

/* ---------------------------------------------------------------- all of them */

static int add_word(struct gf_args *args, const char *word, struct gf_err *err)
{
    if (args->nwords >= args->cmd->max_words)
        return gf_fail(err, EINVAL, "one word too many: '%s', usage: gatherfs %s %s", word,
                       args->cmd->name, args->cmd->words);
    args->word[args->nwords++] = word;
    return 0;
}

static int parse_all(struct gf_args *args, struct cursor *c, struct gf_err *err)
{
    bool options = true;
    int r = 0;

    while (!r && !args->help && c->at < c->argc) {
        const char *arg = c->argv[c->at++];

        if (options && !strcmp(arg, "--"))
            options = false;
        else if (options && !strncmp(arg, "--", 2))
            r = set_long(args, c, arg, err);
        else if (options && arg[0] == '-' && arg[1])
            r = set_letters(args, c, arg + 1, err);
        else
            r = add_word(args, arg, err);
    }
    if (!r && !args->help && args->nwords < args->cmd->min_words)
        return gf_fail(err, EINVAL, "usage: gatherfs %s %s", args->cmd->name,
                       args->cmd->words);
    return r;
}

int gf_args_parse(const struct gf_cmd *cmd, int argc, char **argv, struct gf_args *ret,
                  struct gf_err *err)
{
    struct cursor c = { .argc = argc, .argv = argv };
    int r;

    *ret = (struct gf_args){ .cmd = cmd };
    gf_options_init(&ret->opt);
    r = parse_all(ret, &c, err);
    if (r)
        gf_args_done(ret);
    return r;
}

void gf_args_done(struct gf_args *args)
{
    gf_options_done(&args->opt);
    free(args->fuse_opts);
    args->fuse_opts = NULL;
}

const char *gf_args_flag(const struct gf_args *args, const char *key)
{
    int i = find_flag(args->cmd, key, 0);

    return i < 0 ? NULL : args->flag[i];
}

int gf_parse_number(const char *what, const char *text, uint64_t min, uint64_t max,
                    uint64_t *ret, struct gf_err *err)
{
    unsigned long long value;
    char *end;

    errno = 0;
    value = strtoull(text, &end, 10);
    if (errno || !isdigit((unsigned char)*text) || *end || value < min || value > max)
        return gf_fail(err, EINVAL, "%s: '%s' is not a number from %llu to %llu", what,
                       text, (unsigned long long)min, (unsigned long long)max);
    *ret = value;
    return 0;
}
