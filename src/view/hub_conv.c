/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hub_conv.c - one rule of the mapping, ready to be applied either way.
 *
 * The patterns are regular expressions on one side and plain text on the other; which is
 * which depends on the direction. transformers turns one into the other with a few textual
 * rules (WeightTransform.__init__, process_target_pattern, process_source_pattern of
 * core_model_loading.py), and so does this: what they make of a pattern is the file's name
 * for a tensor, sensible or not.
 */
#include "view/hub_int.h"

#include <string.h>

#include "base/text.h"

#define MAX_PATTERNS 4

struct patterns {
    const char *at[MAX_PATTERNS];
    size_t n;
};

static int split(const char *text, struct gf_arena *arena, struct patterns *ret,
                 struct gf_err *err)
{
    ret->n = 0;
    while (ret->n < MAX_PATTERNS) {
        size_t len = strcspn(text, " ");

        ret->at[ret->n] = gf_arena_strndup(arena, text, len);
        if (!ret->at[ret->n++])
            return gf_nomem(err);
        if (!text[len])
            break;
        text += len + 1;
    }
    return 0;
}

static char *take(struct gf_text *text, struct gf_arena *arena, struct gf_err *err)
{
    char *copy =
        text->failed ? NULL : gf_arena_strndup(arena, text->s ? text->s : "", text->len);

    gf_text_done(text);
    if (!copy)
        gf_nomem(err);
    return copy;
}

/* Is there a lookaround or another "(?...)" at s? Its end: behind the first ')', or the second
 * if two stand together. */
static const char *skip_assertion(const char *s)
{
    const char *end;

    if (strncmp(s, "(?", 2) != 0 || !s[2] || !(end = strchr(s + 3, ')')))
        return NULL;
    return end + (end[1] == ')' ? 2 : 1);
}

/* A pattern as the text that matches become: no anchors, assertions and backslashes; its
 * group is \1. *ret_group: that group, or NULL. */
static int to_text(const char *pattern, struct gf_arena *arena, const char **ret,
                   const char **ret_group, struct gf_err *err)
{
    size_t len = strlen(pattern);
    struct gf_text out = { 0 };
    const char *end = pattern + len, *skipped;
    char *text, *open, *close;

    if (*pattern == '^')
        pattern++;
    if (end > pattern && end[-1] == '$')
        end--;
    while (pattern < end) {
        if ((skipped = skip_assertion(pattern))) {
            pattern = skipped;
            continue;
        }
        if (pattern[0] == '\\' && pattern[1] == '.')
            pattern++;
        gf_text_addn(&out, pattern++, 1);
    }
    text = take(&out, arena, err);
    if (!text)
        return -ENOMEM;
    *ret = text;
    *ret_group = NULL;
    open = strchr(text, '(');
    close = open && open[1] ? strchr(open + 2, ')') : NULL;
    if (!close)
        return 0;
    *ret_group = gf_arena_strndup(arena, open, (size_t)(close + 1 - open));
    *ret = gf_arena_printf(arena, "%.*s\\1%s", (int)(open - text), text, close + 1);
    return *ret && *ret_group ? 0 : gf_nomem(err);
}

/* Appends with every `what` replaced. */
static void add_replaced(struct gf_text *out, const char *s, const char *what,
                         const char *with, bool all)
{
    const char *hit;

    while ((hit = strstr(s, what))) {
        gf_text_addn(out, s, (size_t)(hit - s));
        gf_text_add(out, with);
        s = hit + strlen(what);
        if (!all)
            break;
    }
    gf_text_add(out, s);
}

/* The regular expression of one pattern: a group in place of \1, the anchors of the pattern
 * that it becomes, '*.' as anything up to a dot. */
static char *to_regex(const char *pattern, const char *group, const char *becomes,
                      struct gf_arena *arena, struct gf_err *err)
{
    struct gf_text out = { 0 };
    char *with_group;

    if (becomes && *becomes == '^' && *pattern != '^')
        gf_text_add(&out, "^");
    add_replaced(&out, pattern, "\\1", group ? group : "", false);
    if (becomes && *becomes && becomes[strlen(becomes) - 1] == '$' &&
        (!out.len || out.s[out.len - 1] != '$'))
        gf_text_add(&out, "$");
    with_group = take(&out, arena, err);
    if (!with_group)
        return NULL;
    add_replaced(&out, with_group, "*.", ".*\\.", true);
    return take(&out, arena, err);
}

/* The longest text that is in everything that the pattern matches, outside of groups; "" where
 * there are alternatives. */
static const char *find_literal(const char *pattern, struct gf_arena *arena)
{
    char *run = gf_arena_alloc(arena, strlen(pattern) + 1), *best;
    size_t n = 0, longest = 0;
    int depth = 0;

    best = gf_arena_alloc(arena, strlen(pattern) + 1);
    if (!run || !best)
        return NULL;
    for (const char *p = pattern, *next;; p = next) {
        bool escaped = p[0] == '\\' && p[1], dot = escaped && p[1] == '.';

        next = p + (escaped ? 2 : 1);
        depth += (*p == '(') - (*p == ')');
        if (*p == '|' && depth == 0)
            return "";
        if (*p && depth == 0 && (dot || !strchr("^$.*+?()[]{}|\\", *p)) &&
            !(*next && strchr("*?{", *next))) {
            run[n++] = *(next - 1);
            continue;
        }
        if (n > longest) {
            memcpy(best, run, n);
            best[n] = '\0';
            longest = n;
        }
        if (!*p)
            return best;
        n = 0;
    }
}

static int make_way(const struct patterns *from, const struct patterns *to,
                    struct gf_arena *arena, struct gf_hub_way *ret, struct gf_err *err)
{
    const char *group = NULL, *found;
    struct gf_text regex = { 0 };
    int r = 0;

    ret->to = gf_arena_alloc(arena, to->n * sizeof(*ret->to));
    if (!ret->to)
        return gf_nomem(err);
    ret->n = to->n;
    for (size_t i = 0; i < to->n && !r; i++) {
        r = to_text(to->at[i], arena, &ret->to[i], &found, err);
        if (!r && found)
            group = found;
    }
    for (size_t i = 0; i < from->n && !r; i++) {
        const char *one =
            to_regex(from->at[i], group, from->n == to->n ? to->at[i] : NULL, arena, err);

        if (!one)
            r = -ENOMEM;
        else if (from->n == 1)
            gf_text_add(&regex, one);
        else
            gf_text_printf(&regex, "%s(?:%s)", i ? "|" : "", one);
    }
    if (!r && regex.failed)
        r = gf_nomem(err);
    if (!r)
        r = gf_regex_new(regex.s ? regex.s : "", &ret->regex, err);
    if (!r && !(ret->literal = find_literal(regex.s ? regex.s : "", arena)))
        r = gf_nomem(err);
    gf_text_done(&regex);
    return r;
}

/* PrefixChange: into or out of names that start with `behind`. */
static int make_prefix(bool add, const char *part, const char *behind,
                       struct gf_arena *arena, struct gf_hub_way *ret, struct gf_err *err)
{
    const char *dot = *behind ? "\\." : "";
    struct patterns from = { .n = 1 }, to = { .n = 1 };

    if (add) {
        from.at[0] = gf_arena_printf(arena, "^%s%s(?:(?!%s\\.))(.+)$", behind, dot, part);
        to.at[0] = gf_arena_printf(arena, "%s%s%s\\.\\1", behind, dot, part);
    } else {
        from.at[0] = gf_arena_printf(arena, "^%s%s%s\\.(.+)$", behind, dot, part);
        to.at[0] = gf_arena_printf(arena, "%s%s\\1", behind, dot);
    }
    if (!from.at[0] || !to.at[0])
        return gf_nomem(err);
    return make_way(&from, &to, arena, ret, err);
}

int gf_hub_conv_init(struct gf_hub_conv *conv, const struct gf_hub_rule *rule,
                     struct gf_arena *arena, struct gf_err *err)
{
    struct patterns hub, module;
    int r;

    *conv = (struct gf_hub_conv){ .rule = rule };
    if (rule->op == GF_HUB_ADD || rule->op == GF_HUB_REMOVE) {
        bool add = rule->op == GF_HUB_ADD;

        conv->on_use = true;
        r = make_prefix(add, rule->hub, rule->module, arena, &conv->load, err);
        if (!r)
            r = make_prefix(!add, rule->hub, rule->module, arena, &conv->save, err);
        return r;
    }
    r = split(rule->hub, arena, &hub, err);
    if (!r)
        r = split(rule->module, arena, &module, err);
    if (!r && rule->op == GF_HUB_SHARDS)
        conv->count_key = module.at[--module.n];
    if (!r)
        r = make_way(&hub, &module, arena, &conv->load, err);
    if (!r)
        r = make_way(&module, &hub, arena, &conv->save, err);
    return r;
}

void gf_hub_conv_done(struct gf_hub_conv *conv)
{
    gf_regex_free(conv->load.regex);
    gf_regex_free(conv->save.regex);
}

static bool starts_with(const char *s, const char *prefix)
{
    return strncmp(s, prefix, strlen(prefix)) == 0;
}

int gf_hub_conv_apply(const struct gf_hub_conv *conv, const struct gf_hub_way *way,
                      const char *name, struct gf_arena *arena, const char **ret,
                      struct gf_err *err)
{
    const char *rest = name, *hit;
    struct gf_span at[2];
    struct gf_text out = { 0 };
    size_t len;

    *ret = NULL;
    if (conv->scope) {
        bool is_long = starts_with(name, conv->long_scope);

        if (!is_long && !starts_with(name, conv->scope))
            return 0;
        rest = name + strlen(is_long ? conv->long_scope : conv->scope);
    }
    if (!strstr(rest, way->literal) || !gf_regex_find(way->regex, rest, at, 2))
        return 0;
    /* str.replace(match, text, 1): the first place with the text that matched, which is not
     * always where the match was. */
    len = at[0].end - at[0].start;
    hit = memmem(rest, strlen(rest), rest + at[0].start, len);
    gf_text_addn(&out, name, (size_t)(hit - name));
    if (strstr(way->to[0], "\\1")) {
        char *group = gf_arena_strndup(arena, rest + at[1].start, at[1].end - at[1].start);

        if (!group)
            out.failed = true;
        else
            add_replaced(&out, way->to[0], "\\1", group, true);
    } else {
        gf_text_add(&out, way->to[0]);
    }
    gf_text_add(&out, hit + len);
    *ret = take(&out, arena, err);
    return *ret ? 0 : -ENOMEM;
}
