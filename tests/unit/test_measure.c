/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/t.h"

#include "snapshot/measure.h"
#include "tests/unit/t_run.h"

#define STORED 79  /* the file that t_run_model() writes: 8 + 55 + 16 */
#define SERVED 112 /* as safetensors writes it: 8 + 88, "__metadata__" with it, + 16 */

static void measure(struct t_run *t, const char *path, struct gf_measured *ret)
{
    GF_AUTO(gf_run) run = NULL;

    GF_OK(gf_run_open(t_run_path(t, path), &t->opt, &run, &t_err));
    GF_OK(gf_run_measure(run, ret, &t_err));
}

/* All files below `path` as if written then, in seconds of some day. */
static void written_at(struct t_run *t, const char *path, unsigned seconds)
{
    char command[256];

    snprintf(command, sizeof(command), "find '%s' -type f -exec touch -d @%u {} +", path,
             1700000000 + seconds);
    t_run_shell(t, command);
}

static void a_checkpoint_is_all_of_its_files(void **state)
{
    struct t_run *t = *state;
    struct gf_measured m;

    t_run_model(t, "", 1);
    t_run_text(t, "config.json", "{}");
    t_run_text(t, "optim/deep/er/state", "12345678");
    measure(t, "", &m);
    assert_string_equal(m.path, "");
    assert_int_equal(m.weights, SERVED);
    assert_int_equal(m.full, STORED + 2 + 8);
    assert_int_equal(m.nsteps, 0);
    gf_measured_done(&m);
}

static void a_runs_newest_checkpoint_is_its_size_and_the_median_pair_its_rate(void **state)
{
    struct t_run *t = *state;
    struct gf_measured m;

    t_run_model(t, "", 0); /* a final model is no step */
    for (unsigned i = 1; i <= 5; i++) {
        char dir[32], state_file[64];

        snprintf(dir, sizeof(dir), "checkpoint-%u", i * 100);
        snprintf(state_file, sizeof(state_file), "%s/trainer_state.json", dir);
        t_run_model(t, dir, (float)i);
        t_run_text(t, state_file, i == 5 ? "{ }  " : "{}");
        /* 30 s each, but for a pause of an hour before the fourth */
        written_at(t, dir, i * 30 + (i >= 4 ? 3600 : 0));
    }
    measure(t, "", &m);
    assert_string_equal(m.path, "checkpoint-500");
    assert_int_equal(m.full, STORED + 5);
    assert_int_equal(m.nsteps, 5);
    assert_int_equal(m.first, 100);
    assert_int_equal(m.last, 500);
    assert_int_equal(m.every, 100);
    assert_true(m.gap == 30);
    assert_true(m.step == 0.3);
    gf_measured_done(&m);
}

static void times_that_run_backwards_say_nothing(void **state)
{
    struct t_run *t = *state;
    struct gf_measured m;

    for (unsigned i = 1; i <= 3; i++) {
        char dir[32];

        snprintf(dir, sizeof(dir), "step_%u", i);
        t_run_model(t, dir, (float)i);
        written_at(t, dir, 100 - i);
    }
    measure(t, "", &m);
    assert_int_equal(m.nsteps, 0);
    gf_measured_done(&m);
}

static void several_checkpoints_of_a_step_are_one(void **state)
{
    struct t_run *t = *state;
    struct gf_measured m;

    t_run_model(t, "global_step_4/actor", 1);
    t_run_model(t, "global_step_4/critic", 2);
    t_run_model(t, "global_step_8/actor", 3);
    t_run_model(t, "global_step_8/critic", 4);
    written_at(t, "global_step_4", 0);
    written_at(t, "global_step_8", 8);
    measure(t, "", &m);
    assert_string_equal(m.path, "global_step_8");
    assert_int_equal(m.full, 2 * STORED);
    assert_int_equal(m.weights, 0); /* which of the two is not said */
    assert_int_equal(m.nsteps, 2);
    assert_true(m.step == 2);
    gf_measured_done(&m);
}

static void one_picked_checkpoint_is_measured_alone(void **state)
{
    struct t_run *t = *state;
    struct gf_measured m;

    t_run_model(t, "step_1", 1);
    t_run_model(t, "step_2", 2);
    GF_OK(gf_options_set(&t->opt, "step", "1", &t_err));
    measure(t, "", &m);
    assert_string_equal(m.path, "");
    assert_int_equal(m.full, STORED);
    assert_int_equal(m.nsteps, 0);
    gf_measured_done(&m);
}

int main(void)
{
#define RUN_TEST(f) cmocka_unit_test_setup_teardown(f, t_run_setup, t_run_teardown)
    const struct CMUnitTest tests[] = {
        RUN_TEST(a_checkpoint_is_all_of_its_files),
        RUN_TEST(a_runs_newest_checkpoint_is_its_size_and_the_median_pair_its_rate),
        RUN_TEST(times_that_run_backwards_say_nothing),
        RUN_TEST(several_checkpoints_of_a_step_are_one),
        RUN_TEST(one_picked_checkpoint_is_measured_alone),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
