/* SPDX-License-Identifier: Apache-2.0 */
/* source, mem, file, dir, dir_local, dir_mem. */
#include "t.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "source/dir.h"

static char root[64];

static void put(const char *path, const char *text)
{
    char full[256];
    FILE *f;

    snprintf(full, sizeof(full), "%s/%s", root, path);
    f = fopen(full, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static const char *at(const char *path)
{
    static char full[2][256];
    static int turn;

    turn = !turn;
    snprintf(full[turn], sizeof(full[turn]), "%s/%s", root, path);
    return full[turn];
}

static int setup(void **state)
{
    struct gf_dir *dir;

    snprintf(root, sizeof(root), "/tmp/gf-test-source.XXXXXX");
    assert_non_null(mkdtemp(root));
    mkdir(at("src"), 0755);
    mkdir(at("src/sub"), 0755);
    put("src/a.txt", "hello");
    put("src/sub/b.txt", "world!");
    put("secret", "secret");
    GF_OK(gf_dir_local(at("src"), false, &gf_limits_default, &dir, &t_err));
    *state = dir;
    return 0;
}

static int teardown(void **state)
{
    char command[128];

    gf_dir_free(*state);
    snprintf(command, sizeof(command), "rm -rf '%s'", root);
    return system(command);
}

static void a_listing_is_sorted_and_tells_directories(void **state)
{
    struct gf_dir_listing listing;

    put("src/0", "");
    mkfifo(at("src/fifo"), 0600);
    GF_OK(gf_dir_list(*state, "", &listing, &t_err));
    assert_int_equal(listing.n, 3);
    assert_string_equal(listing.at[0].name, "0");
    assert_string_equal(listing.at[1].name, "a.txt");
    assert_int_equal(listing.at[1].identity.size, 5);
    assert_true(listing.at[2].is_dir);
    assert_ptr_equal(gf_dir_listing_find(&listing, "a.txt"), &listing.at[1]);
    assert_null(gf_dir_listing_find(&listing, "fifo"));
    gf_dir_listing_free(&listing);
}

static void reads_are_whole_or_fail(void **state)
{
    struct gf_source *src;
    char buf[8] = "";

    GF_OK(gf_dir_open(*state, "sub/b.txt", &src, &t_err));
    assert_int_equal(gf_source_read(src, buf, 3, 3), 0);
    assert_string_equal(buf, "ld!");
    assert_int_equal(gf_source_read(src, buf, 4, 3), -EINVAL);
    GF_FAILS(gf_source_read_err(src, buf, 4, 3, &t_err), GF_EBAD, "needs 4 bytes at 3");
    gf_source_free(src);
}

static void paths_do_not_lead_out(void **state)
{
    struct gf_source *src = NULL;

    symlink("../secret", at("src/out"));
    symlink("a.txt", at("src/in"));
    symlink("/etc", at("src/etc"));
    GF_FAILS(gf_dir_open(*state, "../secret", &src, &t_err), EPERM, "leads out");
    GF_FAILS(gf_dir_open(*state, "/etc/passwd", &src, &t_err), EPERM, "leads out");
    GF_FAILS(gf_dir_open(*state, "sub/../a.txt", &src, &t_err), EPERM, "leads out");
    GF_FAILS(gf_dir_open(*state, "out", &src, &t_err), EPERM, "follow_links");
    GF_FAILS(gf_dir_open(*state, "etc/passwd", &src, &t_err), EPERM, "follow_links");
    assert_null(src);
    GF_OK(gf_dir_open(*state, "in", &src, &t_err));
    gf_source_free(src);
}

static void follow_links_allows_them(void **state)
{
    struct gf_dir *dir;
    struct gf_source *src;

    (void)state;
    symlink("../secret", at("src/out"));
    GF_OK(gf_dir_local(at("src"), true, &gf_limits_default, &dir, &t_err));
    GF_OK(gf_dir_open(dir, "out", &src, &t_err));
    gf_source_free(src);
    gf_dir_free(dir);
}

static void a_cache_snapshot_may_link_to_its_own_blobs(void **state)
{
    struct gf_dir *dir;
    struct gf_source *src = NULL;

    (void)state;
    mkdir(at("repo"), 0755);
    mkdir(at("repo/blobs"), 0755);
    mkdir(at("repo/snapshots"), 0755);
    mkdir(at("repo/snapshots/abc"), 0755);
    put("repo/blobs/123", "blob");
    symlink("../../blobs/123", at("repo/snapshots/abc/config.json"));
    symlink("../../../secret", at("repo/snapshots/abc/evil"));
    GF_OK(gf_dir_local(at("repo/snapshots/abc"), false, &gf_limits_default, &dir, &t_err));
    GF_OK(gf_dir_open(dir, "config.json", &src, &t_err));
    assert_int_equal(src->size, 4);
    gf_source_free(src);
    GF_FAILS(gf_dir_open(dir, "evil", &src, &t_err), EPERM, "follow_links");
    gf_dir_free(dir);
}

static void what_is_no_regular_file_does_not_open_or_block(void **state)
{
    struct gf_source *src = NULL;

    mkfifo(at("src/fifo"), 0600);
    GF_FAILS(gf_dir_open(*state, "fifo", &src, &t_err), EINVAL, "not a regular file");
    GF_FAILS(gf_dir_open(*state, "sub", &src, &t_err), EINVAL, "not a regular file");
    GF_FAILS(gf_dir_open(*state, "none", &src, &t_err), ENOENT, "none");
}

/* Opening a FIFO for reading, O_NONBLOCK or not, lets go a writer that waits for that. */
static void what_is_refused_is_not_touched(void **state)
{
    struct gf_source *src = NULL;
    pid_t writer;
    int ignored;

    mkfifo(at("src/fifo"), 0600);
    writer = fork();
    if (!writer) {
        alarm(20);
        _exit(open(at("src/fifo"), O_WRONLY) < 0);
    }
    usleep(100000); /* for it to wait */
    GF_FAILS(gf_dir_open(*state, "fifo", &src, &t_err), EINVAL, "not a regular file");
    usleep(100000);
    assert_int_equal(waitpid(writer, &ignored, WNOHANG), 0);
    kill(writer, SIGKILL);
    assert_int_equal(waitpid(writer, &ignored, 0), writer);
    gf_dir_free(*state);
    GF_OK(gf_dir_local("/dev", false, &gf_limits_default, (struct gf_dir **)state, &t_err));
    GF_FAILS(gf_dir_open(*state, "null", &src, &t_err), EINVAL, "not a regular file");
}

static void what_took_a_files_name_is_stale(void **state)
{
    struct gf_source *src;

    GF_OK(gf_dir_open(*state, "a.txt", &src, &t_err));
    assert_int_equal(unlink(at("src/a.txt")), 0);
    mkfifo(at("src/a.txt"), 0600);
    assert_int_equal(gf_source_check(src), -ESTALE);
    gf_source_free(src);
}

static atomic_bool stop_renaming;

static void *rename_on(void *unused)
{
    char from[256], to[256];

    (void)unused;
    snprintf(from, sizeof(from), "%s/x", root);
    snprintf(to, sizeof(to), "%s/y", root);
    while (!atomic_load(&stop_renaming)) {
        rename(from, to);
        rename(to, from);
    }
    return NULL;
}

/* Any rename makes the kernel doubt what ".." in a link leads to. */
static void renames_elsewhere_do_no_harm(void **state)
{
    struct gf_dir_entry entry;
    unsigned failed = 0;
    pthread_t thread;

    put("x", "");
    symlink("../sub/../sub/b.txt", at("src/sub/up"));
    atomic_store(&stop_renaming, false);
    assert_int_equal(pthread_create(&thread, NULL, rename_on, NULL), 0);
    for (unsigned i = 0; i < 100000; i++)
        failed += gf_dir_stat(*state, "sub/up", &entry) != 0;
    atomic_store(&stop_renaming, true);
    pthread_join(thread, NULL);
    assert_int_equal(failed, 0);
}

static void a_changed_file_is_stale_not_wrong(void **state)
{
    struct gf_source *src;
    char buf[8];

    GF_OK(gf_dir_open(*state, "a.txt", &src, &t_err));
    GF_OK(gf_source_pin(src));
    assert_non_null(gf_source_map(src, 0, 5));
    assert_int_equal(gf_source_check(src), 0);
    assert_int_equal(truncate(at("src/a.txt"), 2), 0);
    assert_int_equal(gf_source_read(src, buf, 5, 0), -ESTALE);
    assert_null(gf_source_map(src, 0, 5));
    assert_int_equal(gf_source_check(src), -ESTALE);
    gf_source_unpin(src);
    gf_source_free(src);
}

static void a_pinned_file_survives_its_name(void **state)
{
    struct gf_source *src;
    char buf[6] = "";

    GF_OK(gf_dir_open(*state, "a.txt", &src, &t_err));
    GF_OK(gf_source_pin(src));
    unlink(at("src/a.txt"));
    put("src/a.txt", "other");
    assert_int_equal(gf_source_read(src, buf, 5, 0), 0);
    assert_string_equal(buf, "hello");
    assert_int_equal(gf_source_check(src), -ESTALE);
    gf_source_unpin(src);
    gf_source_free(src);
}

static int count_fds(void)
{
    int n = 0;

    for (int fd = 0; fd < 1024; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

/* Past half of RLIMIT_NOFILE, files that nobody uses are closed, and open again by name. */
static void many_files_fit_in_few_descriptors(void **state)
{
    enum { N = 200 };
    struct gf_source *src[N];
    struct rlimit old, low;
    char name[32], buf[8];

    getrlimit(RLIMIT_NOFILE, &old);
    low = (struct rlimit){ 64, old.rlim_max };
    for (int i = 0; i < N; i++) {
        snprintf(name, sizeof(name), "src/f%d", i);
        put(name, "abcdef");
    }
    setrlimit(RLIMIT_NOFILE, &low);
    for (int i = 0; i < N; i++) {
        snprintf(name, sizeof(name), "f%d", i);
        GF_OK(gf_dir_open(*state, name, &src[i], &t_err));
    }
    for (int i = 0; i < N; i++)
        assert_int_equal(gf_source_read(src[i], buf, 6, 0), 0);
    assert_in_range(count_fds(), 5, 50);
    unlink(at("src/f150"));
    put("src/f150", "abcdef");
    assert_int_equal(gf_source_read(src[150], buf, 6, 0), -ESTALE); /* another file now */
    setrlimit(RLIMIT_NOFILE, &old);
    for (int i = 0; i < N; i++)
        gf_source_free(src[i]);
}

static void a_small_file_is_read_whole_and_bounded(void **state)
{
    char *text = NULL;
    size_t len;

    GF_OK(gf_dir_read(*state, "a.txt", 100, &text, &len, &t_err));
    assert_string_equal(text, "hello");
    assert_int_equal(len, 5);
    free(text);
    text = NULL;
    GF_FAILS(gf_dir_read(*state, "a.txt", 4, &text, &len, &t_err), GF_EBAD, "at most 4");
    GF_FAILS(gf_dir_read(*state, "none", 4, &text, &len, &t_err), ENOENT, "none");
    assert_null(text);
}

static void a_memory_directory_behaves_the_same(void **state)
{
    struct gf_dir *dir;
    struct gf_dir_listing listing;
    struct gf_dir_entry entry;
    struct gf_source *src;

    (void)state;
    GF_OK(gf_dir_mem("mem", &gf_limits_default, &dir, &t_err));
    GF_OK(gf_dir_mem_add(dir, "z", "1", 1, &t_err));
    GF_OK(gf_dir_mem_add(dir, "a/b", "22", 2, &t_err));
    GF_OK(gf_dir_mem_add(dir, "a-b", "333", 3, &t_err));
    GF_OK(gf_dir_mem_add(dir, "a/c", "4444", 4, &t_err));
    GF_OK(gf_dir_list(dir, "", &listing, &t_err));
    assert_int_equal(listing.n, 3);
    assert_true(listing.at[0].is_dir && listing.at[0].name[1] == '\0');
    gf_dir_listing_free(&listing);
    GF_OK(gf_dir_list(dir, "a", &listing, &t_err));
    assert_int_equal(listing.n, 2);
    gf_dir_listing_free(&listing);
    GF_FAILS(gf_dir_list(dir, "none", &listing, &t_err), ENOENT, "none");
    assert_int_equal(gf_dir_stat(dir, "a", &entry), 0);
    assert_true(entry.is_dir);
    assert_int_equal(gf_dir_stat(dir, "nope", &entry), -ENOENT);
    GF_OK(gf_dir_open(dir, "a/c", &src, &t_err));
    assert_int_equal(src->size, 4);
    gf_source_free(src);
    gf_dir_free(dir);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(a_listing_is_sorted_and_tells_directories),
        T(reads_are_whole_or_fail),
        T(paths_do_not_lead_out),
        T(follow_links_allows_them),
        T(a_cache_snapshot_may_link_to_its_own_blobs),
        T(what_is_no_regular_file_does_not_open_or_block),
        T(what_is_refused_is_not_touched),
        T(what_took_a_files_name_is_stale),
        T(renames_elsewhere_do_no_harm),
        T(a_changed_file_is_stale_not_wrong),
        T(a_pinned_file_survives_its_name),
        T(many_files_fit_in_few_descriptors),
        T(a_small_file_is_read_whole_and_bounded),
        T(a_memory_directory_behaves_the_same),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
