/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/ctl.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "base/math.h"
#include "snapshot/report.h"

static double uptime(const struct gf_fs *fs)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - fs->started.tv_sec) +
           (double)(now.tv_nsec - fs->started.tv_nsec) / 1e9;
}

static double read_time(struct gf_fs *fs)
{
    return (double)atomic_load_explicit(&fs->read_ns, memory_order_relaxed) / 1e9;
}

/* ---------------------------------------------------------------- counters */

struct counter {
    const char *json, *metric, *type, *help;
    uint64_t value;
};

#define COUNTERS 7

static void counters(struct gf_fs *fs, struct counter ret[static COUNTERS])
{
    const struct counter all[COUNTERS] = {
        { "opens", "gatherfs_opens_total", "counter", "Files opened.", fs->opens },
        { "open_files", "gatherfs_open_files", "gauge", "Files open now.", fs->open_files },
        { "lookups", "gatherfs_lookups_total", "counter", "Names looked up.", fs->lookups },
        { "nodes", "gatherfs_nodes", "gauge", "Inodes the kernel knows.",
          gf_tree_count(fs->tree) },
        { "reads", "gatherfs_reads_total", "counter", "Read requests answered.",
          fs->reads },
        { "bytes", "gatherfs_read_bytes_total", "counter", "Bytes served to read requests.",
          fs->bytes },
        { "errors", "gatherfs_errors_total", "counter",
          "Requests that failed with an error.", fs->errors },
    };

    memcpy(ret, all, sizeof(all));
}

static void add_counters(struct gf_fs *fs, struct gf_text *out)
{
    struct counter all[COUNTERS];

    counters(fs, all);
    gf_text_printf(out, "\"uptime_s\": %.3f, \"read_s\": %.6f", uptime(fs), read_time(fs));
    for (size_t i = 0; i < COUNTERS; i++)
        gf_text_printf(out, ", \"%s\": %" PRIu64, all[i].json, all[i].value);
}

static void metrics(struct gf_fs *fs, struct gf_text *out)
{
    struct counter all[COUNTERS];

    counters(fs, all);
    for (size_t i = 0; i < COUNTERS; i++)
        gf_text_printf(out, "# HELP %s %s\n# TYPE %s %s\n%s %" PRIu64 "\n", all[i].metric,
                       all[i].help, all[i].metric, all[i].type, all[i].metric,
                       all[i].value);
    gf_text_printf(out,
                   "# HELP gatherfs_read_seconds_total Time spent in read requests, of all "
                   "threads together.\n"
                   "# TYPE gatherfs_read_seconds_total counter\n"
                   "gatherfs_read_seconds_total %.6f\n",
                   read_time(fs));
    gf_text_printf(out,
                   "# HELP gatherfs_uptime_seconds Time since the mount answered.\n"
                   "# TYPE gatherfs_uptime_seconds gauge\n"
                   "gatherfs_uptime_seconds %.3f\n"
                   "# HELP gatherfs_info The version that serves this mount.\n"
                   "# TYPE gatherfs_info gauge\n"
                   "gatherfs_info{version=\"" GATHERFS_VERSION "\"} 1\n",
                   uptime(fs));
}

/* ---------------------------------------------------------------- status */

static void add_string(struct gf_text *out, const char *key, const char *value)
{
    gf_text_printf(out, "\"%s\": ", key);
    if (value)
        gf_text_json(out, value);
    else
        gf_text_add(out, "null");
}

static void add_log(struct gf_fs *fs, struct gf_text *out)
{
    const char *comma = "";

    pthread_mutex_lock(&fs->log_lock);
    for (size_t i = fs->log_n - GF_MIN(fs->log_n, GF_LOG_LINES); i < fs->log_n; i++) {
        gf_text_add(out, comma);
        gf_text_json(out, fs->log[i % GF_LOG_LINES]);
        comma = ", ";
    }
    pthread_mutex_unlock(&fs->log_lock);
}

static int status(struct gf_fs *fs, struct gf_text *out, struct gf_err *err)
{
    const struct gf_options *opt = fs->opt;
    int r;

    gf_text_add(out, "{");
    r = gf_report_status(fs->run, out, err);
    if (r)
        return r;
    gf_text_printf(out, ", \"mount\": {\"pid\": %ld, ", (long)getpid());
    add_string(out, "mountpoint", fs->mountpoint);
    gf_text_add(out, ", \"version\": \"" GATHERFS_VERSION "\", ");
    add_counters(fs, out);
    gf_text_add(out, ", \"options\": {");
    add_string(out, "view", opt->view);
    gf_text_add(out, ", ");
    add_string(out, "views", opt->views);
    gf_text_add(out, ", ");
    add_string(out, "tag", opt->tag);
    gf_text_printf(out,
                   ", \"allow_incomplete\": %s, \"allow_other\": %s, \"direct_io\": %s, ",
                   opt->allow_incomplete ? "true" : "false",
                   opt->allow_other ? "true" : "false", opt->direct_io ? "true" : "false");
    gf_text_printf(out, "\"threads\": %u, \"timeout_s\": %u, ", fs->threads, opt->timeout);
    add_string(out, "log", opt->log);
    gf_text_add(out, ", ");
    add_string(out, "fuse", fs->fuse_opts);
    gf_text_printf(out, "}, \"read_ahead_kb\": %" PRIu64 ", \"log\": [", fs->read_ahead_kb);
    add_log(fs, out);
    gf_text_add(out, "]}}\n");
    return 0;
}

/* ---------------------------------------------------------------- the door */

bool gf_ctl_is_text(enum gf_node_kind kind)
{
    return kind == GF_NODE_STATUS || kind == GF_NODE_STATS || kind == GF_NODE_METRICS ||
           kind == GF_NODE_PROV_FILE;
}

int gf_ctl_text(struct gf_fs *fs, const struct gf_place *place, char **ret, size_t *ret_len,
                struct gf_err *err)
{
    struct gf_text out = { 0 };
    size_t len = 0;
    char *s;
    int r = 0;

    if (place->kind == GF_NODE_STATUS) {
        r = status(fs, &out, err);
    } else if (place->kind == GF_NODE_STATS) {
        gf_text_add(&out, "{");
        add_counters(fs, &out);
        gf_text_add(&out, "}\n");
    } else if (place->kind == GF_NODE_METRICS) {
        metrics(fs, &out);
    } else {
        r = gf_report_provenance(place->dir, place->file, &out, err);
    }
    if (r) {
        gf_text_done(&out);
        return r;
    }
    s = gf_text_take(&out, &len);
    if (!s)
        return gf_nomem(err);
    *ret = s;
    *ret_len = len;
    return 0;
}
