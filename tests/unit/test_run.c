/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/t.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "snapshot/run_int.h"
#include "tests/unit/t_run.h"

static struct gf_run *open_run(struct t_run *t)
{
    struct gf_run *run = NULL;

    GF_OK(gf_run_open(t->top, &t->opt, &run, &t_err));
    return run;
}

static int fail_open(struct t_run *t)
{
    struct gf_run *run = NULL;

    return gf_run_open(t->top, &t->opt, &run, &t_err);
}

/* A finished step of a Trainer. */
static void step(struct t_run *t, unsigned n)
{
    char path[64];

    snprintf(path, sizeof(path), "checkpoint-%u", n);
    t_run_model(t, path, (float)n);
    snprintf(path, sizeof(path), "checkpoint-%u/trainer_state.json", n);
    t_run_text(t, path, "{\"best_model_checkpoint\": \"run/checkpoint-1\"}");
}

/* "path path! link>target dir/" */
static void expect_in(struct gf_run *run, const char *dir, const char *want)
{
    struct gf_run_entry *entries;
    char text[2048] = "";
    size_t n, at = 0;

    GF_OK(gf_run_entries(run, dir, &entries, &n, &t_err));
    for (size_t i = 0; i < n; i++) {
        const struct gf_run_entry *e = &entries[i];

        at += (size_t)snprintf(text + at, sizeof(text) - at, "%s%s%s%s%s", i ? " " : "",
                               e->path, e->kind == GF_RUN_DIR ? "/" : "",
                               e->complete ? "" : "!", e->kind == GF_RUN_LINK ? ">" : "");
        if (e->kind == GF_RUN_LINK)
            at += (size_t)snprintf(text + at, sizeof(text) - at, "%s", e->target);
        assert_true(e->complete == !*e->why);
    }
    gf_run_entries_free(entries, n);
    assert_string_equal(text, want);
}

static void expect(struct gf_run *run, const char *want)
{
    expect_in(run, "", want);
}

/* The value of `w` in the file at `path`. */
static float value_at(struct gf_run *run, const char *path)
{
    GF_AUTO(gf_snapshot) snapshot = NULL;
    struct gf_scratch scratch = { 0 };
    const struct gf_vfile *file;
    const struct gf_vdir *dir;
    struct gf_fault fault = { 0 };
    float value = -1;
    size_t len = 0;

    GF_OK(gf_run_find(run, path, &snapshot, &dir, &file, &t_err));
    assert_int_equal(
        gf_snapshot_read(dir, file, file->size - 4, 4, &value, &len, &scratch, &fault), 0);
    assert_int_equal(len, 4);
    gf_scratch_done(&scratch);
    return value;
}

static bool is_there(struct gf_run *run, const char *path)
{
    GF_AUTO(gf_snapshot) snapshot = NULL;
    const struct gf_vfile *file;
    const struct gf_vdir *dir;

    return gf_run_find(run, path, &snapshot, &dir, &file, NULL) == 0;
}

/* ---- what is shown ---- */

static void a_run_shows_its_steps_and_links(void **state)
{
    struct t_run *t = *state;
    GF_AUTO(gf_run) run = NULL;

    step(t, 1);
    step(t, 2);
    step(t, 10);
    t_run_model(t, "checkpoint-12", 12);
    t_run_text(t, "junk/readme.txt", "");
    run = open_run(t);
    expect(run, "best>checkpoint-1 checkpoint-1 checkpoint-10 checkpoint-12! checkpoint-2 "
                "latest>checkpoint-10");
    expect_in(run, NULL,
              "best>checkpoint-1 checkpoint-1 checkpoint-10 checkpoint-12! "
              "checkpoint-2 latest>checkpoint-10");
    assert_true(value_at(run, "checkpoint-2/model.safetensors") == 2);
    assert_true(value_at(run, "latest/model.safetensors") == 10);
    assert_true(value_at(run, "/best/raw/model.safetensors") == 1);
    assert_true(value_at(run, "./checkpoint-2/full/model.safetensors") == 2);
    assert_false(is_there(run, "checkpoint-12/model.safetensors"));
    assert_false(is_there(run, "model.safetensors"));
    assert_false(is_there(run, "latest"));
    assert_false(is_there(run, "latest/nothing"));
    assert_false(is_there(run, ""));
}

static void a_root_with_weights_has_its_steps_below(void **state)
{
    struct t_run *t = *state;
    GF_AUTO(gf_run) run = NULL;

    t_run_model(t, "", 7);
    step(t, 1);
    run = open_run(t);
    expect(run, "best>checkpoint-1 checkpoint-1 latest>checkpoint-1");
    assert_true(value_at(run, "model.safetensors") == 7);
    assert_true(value_at(run, "latest/model.safetensors") == 1);
    gf_run_free(gf_take(&run));

    /* With view= there is nothing but that view. */
    t->opt.view = strdup("full");
    run = open_run(t);
    expect(run, "");
    assert_false(is_there(run, "latest/model.safetensors"));
    gf_run_free(gf_take(&run));

    /* A root without weights still shows them, each with that view. */
    t_run_shell(t, "rm model.safetensors");
    run = open_run(t);
    expect(run, "best>checkpoint-1 checkpoint-1 latest>checkpoint-1");
    assert_true(value_at(run, "latest/model.safetensors") == 1);
    assert_false(is_there(run, "latest/raw/model.safetensors"));
}

static void steps_in_a_directory_have_their_links_at_the_root(void **state)
{
    struct t_run *t = *state;
    GF_AUTO(gf_run) run = NULL;
    struct gf_snapshot *snapshot;
    char *path;

    t_run_model(t, "checkpoints/checkpoint_0", 10);
    t_run_model(t, "checkpoints/checkpoint_1", 11);
    run = open_run(t);
    expect(run, "checkpoints/ latest>checkpoints/checkpoint_1");
    expect_in(run, "checkpoints", "checkpoints/checkpoint_0 checkpoints/checkpoint_1");
    expect_in(run, "checkpoints/checkpoint_0", "");
    assert_true(value_at(run, "latest/model.safetensors") == 11);
    GF_OK(gf_run_default(run, &snapshot, &path, &t_err));
    assert_string_equal(path, "checkpoints/checkpoint_1");
    gf_snapshot_free(snapshot);
    free(path);
}

static void several_models_in_one_step_stand_side_by_side(void **state)
{
    struct t_run *t = *state;
    GF_AUTO(gf_run) run = NULL;
    struct gf_snapshot *snapshot;
    char *path;

    t_run_model(t, "global_step_8/actor", 8);
    t_run_model(t, "global_step_8/critic", 9);
    run = open_run(t);
    expect(run, "global_step_8/ latest>global_step_8");
    expect_in(run, "global_step_8", "global_step_8/actor global_step_8/critic");
    assert_true(value_at(run, "latest/critic/model.safetensors") == 9);
    GF_FAILS(gf_run_default(run, &snapshot, &path, &t_err), EINVAL,
             "holds 'global_step_8/actor' and 'global_step_8/critic': choose one");
    gf_run_free(gf_take(&run));

    t->opt.tag = strdup("8");
    GF_FAILS(fail_open(t), EINVAL,
             "'8' may be 'global_step_8/actor' or 'global_step_8/critic'");
    free(t->opt.tag);
    t->opt.tag = strdup("global_step_8");
    GF_FAILS(fail_open(t), EINVAL, "'global_step_8/actor' or 'global_step_8/critic'");
    free(t->opt.tag);
    t->opt.tag = strdup("global_step_8/critic");
    run = open_run(t);
    assert_true(value_at(run, "model.safetensors") == 9);
    gf_run_free(gf_take(&run));

    /* One model alone is meant by the step. */
    t_run_shell(t, "rm -r global_step_8/actor");
    free(t->opt.tag);
    t->opt.tag = NULL;
    run = open_run(t);
    GF_OK(gf_run_default(run, &snapshot, &path, &t_err));
    assert_string_equal(path, "global_step_8/critic");
    gf_snapshot_free(snapshot);
    free(path);
}

static void several_runs_have_no_common_latest(void **state)
{
    struct t_run *t = *state;
    GF_AUTO(gf_run) run = NULL;
    struct gf_snapshot *snapshot;
    char *path;

    t_run_model(t, "a/step_1", 1);
    t_run_model(t, "b/step_2", 2);
    run = open_run(t);
    expect(run, "a/ b/");
    GF_FAILS(gf_run_default(run, &snapshot, &path, &t_err), EINVAL,
             "no single newest step");
    assert_false(is_there(run, "latest/model.safetensors"));
}

static void real_entries_win_over_links(void **state)
{
    struct t_run *t = *state;
    GF_AUTO(gf_run) run = NULL;

    step(t, 1);
    t_run_model(t, "latest", 5);
    t_run_model(t, "best/actor", 6);
    run = open_run(t);
    expect(run, "best/ checkpoint-1 latest");
    assert_true(value_at(run, "latest/model.safetensors") == 5);
    assert_true(value_at(run, "best/actor/model.safetensors") == 6);
}

static void a_link_to_a_step_is_that_step(void **state)
{
    struct t_run *t = *state;
    GF_AUTO(gf_run) run = NULL;

    step(t, 1);
    t_run_shell(t,
                "ln -s checkpoint-1 newest && ln -s . loop && ln -s ../.. checkpoint-1/up");
    run = open_run(t);
    expect(run, "best>checkpoint-1 checkpoint-1 latest>checkpoint-1 newest");
}

static void files_of_lightning_are_directories(void **state)
{
    struct t_run *t = *state;
    GF_AUTO(gf_run) run = NULL;

    t_run_text(t, "epoch=0-step=1.ckpt", "not what torch.save writes, but called so");
    run = open_run(t);
    expect(run, "epoch=0-step=1!");
    GF_FAILS(
        gf_run_snapshot(run, "epoch=0-step=1", &(struct gf_snapshot *){ NULL }, &t_err),
        GF_EBAD, "epoch=0-step=1.ckpt");
}

/* ---- choosing ---- */

static void a_step_is_chosen_by_path_number_or_link(void **state)
{
    static const struct {
        const char *tag;
        float value;
    } want[] = {
        { "checkpoint-2", 2 }, { "2", 2 }, { "10", 10 }, { "latest", 10 }, { "best", 1 }
    };
    struct t_run *t = *state;

    step(t, 1);
    step(t, 2);
    step(t, 10);
    t_run_model(t, "checkpoint-11", 11);
    for (size_t i = 0; i < sizeof(want) / sizeof(want[0]); i++) {
        GF_AUTO(gf_run) run = NULL;

        free(t->opt.tag);
        t->opt.tag = strdup(want[i].tag);
        run = open_run(t);
        assert_true(value_at(run, "model.safetensors") == want[i].value);
        expect(run, "");
    }
    free(t->opt.tag);
    t->opt.tag = strdup("3");
    GF_FAILS(fail_open(t), ENOENT, "no checkpoint '3' in it");
    free(t->opt.tag);
    t->opt.tag = strdup("");
    GF_FAILS(fail_open(t), ENOENT, "no checkpoint '' in it");
    free(t->opt.tag);
    t->opt.tag = strdup("11");
    GF_FAILS(fail_open(t), GF_EINCOMPLETE, "'checkpoint-11': no 'trainer_state.json'");
    t->opt.allow_incomplete = true;
    gf_run_free(open_run(t));
}

static void nothing_to_show_is_said_when_it_is_opened(void **state)
{
    struct t_run *t = *state;
    GF_AUTO(gf_run) run = NULL;
    struct gf_snapshot *snapshot;
    char *path;

    GF_FAILS(fail_open(t), ENOENT, "no checkpoint that is known here");
    t_run_text(t, "model.safetensors", "x");
    GF_FAILS(fail_open(t), GF_EBAD, "model.safetensors");
    t_run_shell(t, "rm model.safetensors");
    t_run_model(t, "checkpoint-1", 1);
    run = open_run(t);
    GF_FAILS(gf_run_default(run, &snapshot, &path, &t_err), GF_EINCOMPLETE,
             "no finished checkpoint: 'checkpoint-1': no 'trainer_state.json'");
}

/* ---- while training goes on ---- */

/* Polls until something has changed: file systems count time in ticks. */
static void poll_until_changed(struct gf_run *run)
{
    const struct timespec tick = { .tv_nsec = 10000000 };

    for (int i = 0; i < 300; i++) {
        if (gf_run_poll(run))
            return;
        nanosleep(&tick, NULL);
    }
    fail_msg("no change was seen");
}

static void new_steps_appear_when_they_are_finished(void **state)
{
    struct t_run *t = *state;
    GF_AUTO(gf_run) run = NULL;

    step(t, 1);
    run = open_run(t);
    expect(run, "best>checkpoint-1 checkpoint-1 latest>checkpoint-1");
    t_run_model(t, "checkpoint-2", 2);
    poll_until_changed(run);
    expect(run, "best>checkpoint-1 checkpoint-1 checkpoint-2! latest>checkpoint-1");
    step(t, 2);
    poll_until_changed(run);
    expect(run, "best>checkpoint-1 checkpoint-1 checkpoint-2 latest>checkpoint-2");
    t_run_shell(t, "rm -r checkpoint-1");
    poll_until_changed(run);
    expect(run, "checkpoint-2 latest>checkpoint-2");
}

static void a_broken_step_is_hidden_until_it_is_repaired(void **state)
{
    struct t_run *t = *state;
    GF_AUTO(gf_run) run = NULL;

    step(t, 1);
    step(t, 2);
    t_run_shell(t, "truncate -s -3 checkpoint-2/model.safetensors");
    run = open_run(t);
    expect(run, "best>checkpoint-1 checkpoint-1 checkpoint-2! latest>checkpoint-1");
    assert_false(is_there(run, "checkpoint-2/model.safetensors"));
    step(t, 2);
    poll_until_changed(run);
    expect(run, "best>checkpoint-1 checkpoint-1 checkpoint-2 latest>checkpoint-2");
    assert_true(value_at(run, "latest/model.safetensors") == 2);
}

static void what_is_missing_may_come_in_a_sub_directory(void **state)
{
    static const char *const meta = "step-1/pytorch_model_fsdp_0/.metadata.tmp";
    struct t_run *t = *state;
    GF_AUTO(gf_run) run = NULL;
    struct gf_run_entry *entries;
    size_t n;

    t_run_text(t, "step-1/pytorch_model_fsdp_0/__0_0.distcp", "x");
    t_run_text(t, meta, "x");
    run = open_run(t);
    expect(run, "step-1!");
    gf_run_poll(run);
    GF_OK(gf_run_entries(run, "", &entries, &n, &t_err));
    assert_non_null(strstr(entries[0].why, ".metadata"));
    gf_run_entries_free(entries, n);
    gf_run_poll(run);
    assert_false(gf_run_poll(run));
    t_run_shell(t, "rm step-1/pytorch_model_fsdp_0/.metadata.tmp");
    t_run_text(t, "step-1/pytorch_model_fsdp_0/.metadata", "\x80\x02.");
    poll_until_changed(run); /* still broken, but looked at again */
    expect(run, "step-1!");
}

static void a_step_that_is_deleted_stays_readable_for_who_has_it(void **state)
{
    struct t_run *t = *state;
    GF_AUTO(gf_run) run = NULL;
    GF_AUTO(gf_snapshot) snapshot = NULL;
    struct gf_scratch scratch = { 0 };
    const struct gf_vfile *file;
    const struct gf_vdir *dir;
    float value = 0;
    size_t len;

    step(t, 1);
    step(t, 2);
    run = open_run(t);
    GF_OK(
        gf_run_find(run, "checkpoint-1/model.safetensors", &snapshot, &dir, &file, &t_err));
    GF_OK(gf_snapshot_pin(snapshot, &t_err));
    t_run_shell(t, "rm -r checkpoint-1");
    poll_until_changed(run);
    expect(run, "checkpoint-2 latest>checkpoint-2");
    assert_int_equal(
        gf_snapshot_read(dir, file, file->size - 4, 4, &value, &len, &scratch, NULL), 0);
    assert_true(value == 1);
    gf_snapshot_unpin(snapshot);
    gf_scratch_done(&scratch);
}

static void the_root_keeps_its_model_until_the_next_one_is_whole(void **state)
{
    struct t_run *t = *state;
    GF_AUTO(gf_run) run = NULL;
    GF_AUTO(gf_snapshot) before = NULL;

    t_run_model(t, "", 1);
    run = open_run(t);
    GF_OK(gf_run_snapshot(run, "", &before, &t_err));
    t_run_text(t, "model.safetensors", "half of it");
    for (int i = 0; i < 3; i++)
        assert_false(gf_run_poll(run));
    {
        GF_AUTO(gf_snapshot) after = NULL;

        GF_OK(gf_run_snapshot(run, "", &after, &t_err));
        assert_ptr_equal(before, after);
    }
    t_run_model(t, "", 2);
    poll_until_changed(run);
    assert_true(value_at(run, "model.safetensors") == 2);
    /* Touching what is not part of it makes no new step. */
    gf_snapshot_free(before);
    before = NULL;
    GF_OK(gf_run_snapshot(run, "", &before, &t_err));
    t_run_text(t, "training.log", "x");
    assert_false(gf_run_poll(run));
    {
        GF_AUTO(gf_snapshot) after = NULL;

        GF_OK(gf_run_snapshot(run, "", &after, &t_err));
        assert_ptr_equal(before, after);
    }
}

static void a_final_model_appears_at_the_root(void **state)
{
    struct t_run *t = *state;
    GF_AUTO(gf_run) run = NULL;

    step(t, 1);
    run = open_run(t);
    assert_false(is_there(run, "model.safetensors"));
    t_run_model(t, "", 9);
    poll_until_changed(run);
    assert_true(value_at(run, "model.safetensors") == 9);
    expect(run, "best>checkpoint-1 checkpoint-1 latest>checkpoint-1");
}

static void a_config_that_comes_later_is_served(void **state)
{
    struct t_run *t = *state;
    GF_AUTO(gf_run) run = NULL;

    step(t, 1);
    run = open_run(t);
    assert_false(is_there(run, "checkpoint-1/config.json"));
    t_run_text(t, "config.json", "{\"model_type\": \"x\"}");
    for (int i = 0; i < 200 && !is_there(run, "checkpoint-1/config.json"); i++) {
        const struct timespec tick = { .tv_nsec = 10000000 };

        gf_run_poll(run);
        nanosleep(&tick, NULL);
    }
    assert_true(is_there(run, "checkpoint-1/config.json"));
}

/* ---- many ---- */

static void a_listing_of_many_opens_few(void **state)
{
    struct t_run *t = *state;
    GF_AUTO(gf_run) run = NULL;
    size_t tried = 0, kept = 0, n;
    struct gf_run_entry *entries;

    for (unsigned i = 1; i <= 300; i++)
        step(t, i);
    run = open_run(t);
    GF_OK(gf_run_entries(run, "", &entries, &n, &t_err));
    gf_run_entries_free(entries, n);
    assert_int_equal(n, 302);
    for (size_t i = 0; i < run->n; i++) {
        tried += run->slots[i].state != GF_SLOT_UNTRIED;
        kept += run->slots[i].snapshot != NULL;
    }
    assert_true(tried <= 65);
    assert_true(kept <= 9);
    /* What was dropped is opened again. */
    for (unsigned i = 1; i <= 300; i++) {
        char path[64];

        snprintf(path, sizeof(path), "checkpoint-%u/model.safetensors", i);
        assert_true(value_at(run, path) == (float)i);
    }
    gf_run_poll(run);
}

static void *reader(void *arg)
{
    struct gf_run *run = arg;
    struct gf_run_entry *entries;
    size_t n;

    for (int i = 0; i < 150; i++) {
        struct gf_snapshot *snapshot;
        char *path;

        if (!gf_run_default(run, &snapshot, &path, NULL)) {
            gf_snapshot_free(snapshot);
            free(path);
        }
        if (!gf_run_entries(run, "", &entries, &n, NULL))
            gf_run_entries_free(entries, n);
        is_there(run, "latest/model.safetensors");
    }
    return NULL;
}

static void readers_and_the_poll_go_on_at_once(void **state)
{
    struct t_run *t = *state;
    GF_AUTO(gf_run) run = NULL;
    pthread_t threads[3];

    step(t, 1);
    run = open_run(t);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, reader, run), 0);
    for (unsigned i = 2; i < 30; i++) {
        step(t, i);
        if (i % 5 == 0)
            t_run_shell(t, "rm -rf checkpoint-*[13]");
        gf_run_poll(run);
    }
    for (size_t i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
}

static void set_opening(struct gf_run *run, const char *path, uint64_t number)
{
    pthread_mutex_lock(&run->lock);
    gf_run_slot(run, path)->opening = number;
    pthread_cond_broadcast(&run->opened);
    pthread_mutex_unlock(&run->lock);
}

struct waiter {
    struct gf_run *run;
    atomic_bool done;
    int r;
};

static void *wait_for_it(void *arg)
{
    struct waiter *w = arg;
    struct gf_snapshot *snapshot;

    w->r = gf_run_snapshot(w->run, "checkpoint-1", &snapshot, NULL);
    if (!w->r)
        gf_snapshot_free(snapshot);
    atomic_store(&w->done, true);
    return NULL;
}

/* As if another thread were at a large one. */
static void a_checkpoint_that_takes_long_does_not_block_the_others(void **state)
{
    struct t_run *t = *state;
    GF_AUTO(gf_run) run = NULL;
    struct waiter w = { 0 };
    pthread_t thread;

    for (unsigned i = 1; i <= 3; i++)
        step(t, i);
    run = open_run(t);
    set_opening(run, "checkpoint-1", 1);
    w.run = run;
    assert_int_equal(pthread_create(&thread, NULL, wait_for_it, &w), 0);
    assert_true(value_at(run, "checkpoint-2/model.safetensors") == 2);
    assert_true(value_at(run, "latest/model.safetensors") == 3);
    /* A listing waits a while, then believes what names and markers say. */
    expect_in(run, "",
              "best>checkpoint-1 checkpoint-1 checkpoint-2 "
              "checkpoint-3 latest>checkpoint-3");
    gf_run_poll(run);
    assert_false(atomic_load(&w.done));
    set_opening(run, "checkpoint-1", 0);
    pthread_join(thread, NULL);
    assert_int_equal(w.r, 0);
    assert_true(value_at(run, "checkpoint-1/model.safetensors") == 1);
}

/* What another thread is opening is of files that are gone. */
static void a_new_step_of_an_old_name_waits_for_nobody(void **state)
{
    struct t_run *t = *state;
    GF_AUTO(gf_run) run = NULL;

    step(t, 1);
    step(t, 2);
    run = open_run(t);
    set_opening(run, "checkpoint-1", 1);
    t_run_shell(t, "rm -r checkpoint-1");
    poll_until_changed(run);
    expect_in(run, "", "checkpoint-2 latest>checkpoint-2");
    step(t, 1);
    poll_until_changed(run);
    assert_true(value_at(run, "checkpoint-1/model.safetensors") == 1);
}

#define T(f) cmocka_unit_test_setup_teardown(f, t_run_setup, t_run_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_run_shows_its_steps_and_links),
        T(a_root_with_weights_has_its_steps_below),
        T(steps_in_a_directory_have_their_links_at_the_root),
        T(several_models_in_one_step_stand_side_by_side),
        T(several_runs_have_no_common_latest),
        T(real_entries_win_over_links),
        T(a_link_to_a_step_is_that_step),
        T(files_of_lightning_are_directories),
        T(a_step_is_chosen_by_path_number_or_link),
        T(nothing_to_show_is_said_when_it_is_opened),
        T(new_steps_appear_when_they_are_finished),
        T(a_broken_step_is_hidden_until_it_is_repaired),
        T(what_is_missing_may_come_in_a_sub_directory),
        T(a_step_that_is_deleted_stays_readable_for_who_has_it),
        T(the_root_keeps_its_model_until_the_next_one_is_whole),
        T(a_final_model_appears_at_the_root),
        T(a_config_that_comes_later_is_served),
        T(a_listing_of_many_opens_few),
        T(readers_and_the_poll_go_on_at_once),
        T(a_checkpoint_that_takes_long_does_not_block_the_others),
        T(a_new_step_of_an_old_name_waits_for_nobody),
    };

    return cmocka_run_group_tests_name("run", tests, NULL, NULL);
}
