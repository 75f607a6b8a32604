/* SPDX-License-Identifier: Apache-2.0 */
#include "t.h"

#include <stdlib.h>
#include <unistd.h>

#include "live/publish_int.h"

static void write_text(const char *root, const char *path, const char *text)
{
    char full[256];
    FILE *f;

    snprintf(full, sizeof(full), "mkdir -p $(dirname %s%s)", root, path);
    assert_int_equal(system(full), 0);
    snprintf(full, sizeof(full), "%s%s", root, path);
    f = fopen(full, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void the_least_of_node_and_cgroups_is_available(void **state)
{
    char root[] = "/tmp/gatherfs-budget-XXXXXX", command[64];

    (void)state;
    assert_non_null(mkdtemp(root));
    assert_true(gf_budget_available(root) == UINT64_MAX);
    write_text(root, "/proc/meminfo", "MemTotal: 9 kB\nMemAvailable:   1000 kB\n");
    assert_int_equal(gf_budget_available(root), 1024000);
    write_text(root, "/proc/self/cgroup", "0::/a/b\n");
    assert_int_equal(gf_budget_available(root), 1024000);
    write_text(root, "/sys/fs/cgroup/a/b/memory.max", "max\n");
    write_text(root, "/sys/fs/cgroup/a/b/memory.current", "5000\n");
    write_text(root, "/sys/fs/cgroup/a/b/memory.stat", "anon 5\ninactive_file 1000\n");
    assert_int_equal(gf_budget_available(root), 1024000);
    write_text(root, "/sys/fs/cgroup/a/b/memory.max", "9000\n");
    assert_int_equal(gf_budget_available(root), 5000);
    write_text(root, "/sys/fs/cgroup/a/memory.max", "7000\n");
    write_text(root, "/sys/fs/cgroup/a/memory.current", "6900\n");
    write_text(root, "/sys/fs/cgroup/a/memory.stat", "inactive_file 0\n");
    assert_int_equal(gf_budget_available(root), 100);
    write_text(root, "/sys/fs/cgroup/memory.max", "10\n");
    write_text(root, "/sys/fs/cgroup/memory.current", "900\n");
    write_text(root, "/sys/fs/cgroup/memory.stat", "inactive_file 0\n");
    assert_int_equal(gf_budget_available(root), 0);
    write_text(root, "/proc/self/cgroup", "3:cpu:/x\n2:cpuset,memory:/job\n");
    assert_int_equal(gf_budget_available(root), 1024000);
    write_text(root, "/sys/fs/cgroup/memory/job/memory.limit_in_bytes", "3000\n");
    write_text(root, "/sys/fs/cgroup/memory/job/memory.usage_in_bytes", "2500\n");
    write_text(root, "/sys/fs/cgroup/memory/job/memory.stat", "total_inactive_file 10\n");
    assert_int_equal(gf_budget_available(root), 510);
    snprintf(command, sizeof(command), "rm -r %s", root);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_least_of_node_and_cgroups_is_available),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
