/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/t.h"

#include "base/math.h"
#include "format/steps.h"

/* A run in memory: names are enough for what steps looks at. */
static struct gf_dir *run_of(const char *const *paths, size_t n)
{
    struct gf_dir *dir;

    GF_OK(gf_dir_mem("run", &gf_limits_default, &dir, &t_err));
    for (size_t i = 0; i < n; i++) {
        const char *slash = strrchr(paths[i], '/'), *name = slash ? slash + 1 : paths[i];

        /* A pickle's first bytes, where a format looks at them. */
        if (strcmp(name, "latest") == 0)
            GF_OK(gf_dir_mem_add(dir, paths[i], "global_step5", 12, &t_err));
        else
            GF_OK(gf_dir_mem_add(dir, paths[i], "\x80\x02}.............", 17, &t_err));
    }
    return dir;
}
#define RUN_OF(...)                                                                        \
    run_of((const char *const[]){ __VA_ARGS__ },                                           \
           sizeof((const char *const[]){ __VA_ARGS__ }) / sizeof(char *))

/* All steps as one text: "path", "path!" if hidden, "path#7" with its number. */
static void expect(struct gf_dir *dir, const char *want)
{
    struct gf_steps steps;
    char text[4096] = "";
    size_t at = 0;

    GF_OK(gf_steps_find(dir, NULL, &steps, &t_err));
    for (size_t i = 0; i < steps.at.n; i++) {
        const struct gf_step *s = &steps.at.at[i];

        at += (size_t)snprintf(text + at, sizeof(text) - at, "%s%s", i ? " " : "",
                               *s->path ? s->path : ".");
        if (s->has_number)
            at += (size_t)snprintf(text + at, sizeof(text) - at, "#%d", (int)s->number);
        if (!s->complete)
            at += (size_t)snprintf(text + at, sizeof(text) - at, "!");
        assert_true(s->complete == !*s->why);
    }
    gf_steps_done(&steps);
    gf_dir_free(dir);
    assert_string_equal(text, want);
}

static const char *why_of(struct gf_dir *dir, const char *path)
{
    static char why[GF_WHY];
    struct gf_steps steps;
    const struct gf_step *step;

    GF_OK(gf_steps_find(dir, NULL, &steps, &t_err));
    step = gf_steps_get(&steps, path);
    assert_non_null(step);
    memcpy(why, step->why, sizeof(why));
    gf_steps_done(&steps);
    gf_dir_free(dir);
    return why;
}

/* ---- names ---- */

static void numbers_are_those_of_known_names(void **state)
{
    static const struct {
        const char *name;
        int64_t number; /* -1: none */
    } want[] = {
        { "checkpoint-12", 12 },
        { "checkpoint_007", 7 },
        { "step-5", 5 },
        { "step_0", 0 },
        { "epoch_3", 3 },
        { "global_step40", 40 },
        { "global_step_8", 8 },
        { "iter_0000100", 100 },
        { "checkpoint-999999999999999999", 999999999999999999 },
        { "epoch=1-step=20.ckpt", 20 },
        { "m-epoch=02-step=00030-v1", 30 },
        { "checkpoint-9999999999999999999", -1 },
        { "checkpoint", -1 },
        { "checkpoint-", -1 },
        { "checkpoint-12a", -1 },
        { "mycheckpoint-12", -1 },
        { "12", -1 },
        { "v2", -1 },
        { "step=", -1 },
        { "", -1 },
    };

    (void)state;
    for (size_t i = 0; i < GF_COUNT(want); i++) {
        uint64_t n = 4711;

        if (gf_step_number(want[i].name, &n) != (want[i].number >= 0))
            fail_msg("'%s'", want[i].name);
        if (want[i].number >= 0)
            assert_int_equal(n, want[i].number);
    }
}

/* ---- producers ---- */

static void a_trainers_step_is_finished_when_its_state_is_there(void **state)
{
    (void)state;
    expect(RUN_OF("checkpoint-2/model.safetensors", "checkpoint-2/trainer_state.json",
                  "checkpoint-10/model.safetensors", "checkpoint-10/trainer_state.json",
                  "checkpoint-12/model.safetensors", "checkpoint-12/optimizer.pt",
                  "runs/events/checkpoint-1/model.safetensors", "README.md"),
           "checkpoint-10#10 checkpoint-12#12! checkpoint-2#2");
    assert_string_equal(why_of(RUN_OF("checkpoint-12/model.safetensors"), "checkpoint-12"),
                        "no 'trainer_state.json' yet, which a Trainer writes last");
}

static void snapshots_of_ours_are_finished_without_a_state(void **state)
{
    static const char list[] = "{\"checkpoints\": [{\"step\": 5}, {\"step\": \"6\"}]}";
    struct gf_dir *dir =
        RUN_OF("checkpoint-5/model.safetensors", "checkpoint-6/model.safetensors",
               "latest/model.safetensors", "best/model.safetensors");

    (void)state;
    GF_OK(gf_dir_mem_add(dir, ".gatherfs-snapshots.json", list, strlen(list), &t_err));
    expect(dir, "checkpoint-5#5 checkpoint-6#6!");
    /* A broken list is none. */
    dir = RUN_OF("a/checkpoint-5/model.safetensors", "a/latest/model.safetensors");
    GF_OK(gf_dir_mem_add(dir, "a/.gatherfs-snapshots.json", "{", 1, &t_err));
    expect(dir, "a/checkpoint-5#5! a/latest");
}

static void a_final_model_at_the_root_has_its_steps_below(void **state)
{
    (void)state;
    expect(RUN_OF("model.safetensors", "config.json", "optimizer.bin",
                  "checkpoint-2/model.safetensors", "checkpoint-2/trainer_state.json"),
           ". checkpoint-2#2");
}

static void a_trainers_fsdp_and_deepspeed_steps_are_one_checkpoint_each(void **state)
{
    (void)state;
    expect(RUN_OF("checkpoint-5/pytorch_model_fsdp_0/.metadata",
                  "checkpoint-5/pytorch_model_fsdp_0/__0_0.distcp",
                  "checkpoint-5/optimizer_0/.metadata", "checkpoint-5/trainer_state.json"),
           "checkpoint-5#5");
    expect(RUN_OF("checkpoint-5/global_step5/mp_rank_00_model_states.pt",
                  "checkpoint-5/latest", "checkpoint-5/model.safetensors",
                  "checkpoint-5/trainer_state.json",
                  "checkpoint-6/global_step6/mp_rank_00_model_states.pt"),
           "checkpoint-5#5 checkpoint-6#6!");
}

static void accelerates_state_is_finished_with_the_random_states(void **state)
{
    (void)state;
    expect(RUN_OF("checkpoints/checkpoint_0/model.safetensors",
                  "checkpoints/checkpoint_0/optimizer.bin",
                  "checkpoints/checkpoint_0/random_states_0.pkl",
                  "checkpoints/checkpoint_1/model.safetensors",
                  "checkpoints/checkpoint_1/scheduler.bin"),
           "checkpoints/checkpoint_0#0 checkpoints/checkpoint_1#1!");
    /* Weights come first: that there is more to come is known from the other steps. */
    expect(RUN_OF("checkpoint_1/model.safetensors", "checkpoint_1/random_states_0.pkl",
                  "checkpoint_2/model.safetensors", "step_3/model.safetensors",
                  "final/model.safetensors"),
           "checkpoint_1#1 checkpoint_2#2! final step_3#3");
    expect(RUN_OF("checkpoint-1/model.safetensors", "checkpoint-1/random_states_0.pkl"),
           "checkpoint-1#1");
}

static void a_second_model_of_accelerate_is_below_its_step(void **state)
{
    (void)state;
    expect(RUN_OF("checkpoint_1/pytorch_model_fsdp_0/.metadata",
                  "checkpoint_1/pytorch_model_fsdp_1/.metadata",
                  "checkpoint_1/optimizer_0/.metadata", "checkpoint_1/random_states_0.pkl"),
           "checkpoint_1#1 checkpoint_1/pytorch_model_fsdp_1#1");
}

static void a_checkpoint_as_source_has_no_parts_below(void **state)
{
    (void)state;
    expect(RUN_OF("pytorch_model.bin", "hf_model/pytorch_model.bin"), ".");
    expect(RUN_OF("pytorch_model_fsdp_0/.metadata", "pytorch_model_fsdp_1/.metadata",
                  "optimizer_0/.metadata"),
           ". pytorch_model_fsdp_1");
    expect(RUN_OF("model_world_size_1_rank_0.pt", "huggingface/model.safetensors"), ".");
}

static void trlx_has_steps_a_best_and_a_final_model(void **state)
{
    (void)state;
    expect(RUN_OF("checkpoint_02/pytorch_model.bin", "checkpoint_02/random_states_0.pkl",
                  "checkpoint_02/hf_model/pytorch_model.bin",
                  "best_checkpoint/pytorch_model.bin", "best_checkpoint/optimizer.bin",
                  "best_checkpoint/random_states_0.pkl", "hf_model/pytorch_model.bin"),
           "best_checkpoint checkpoint_02#2 hf_model");
    /* Without the optimizer there is only the exported model. */
    expect(RUN_OF("checkpoint_02/hf_model/pytorch_model.bin"), "checkpoint_02/hf_model#2");
}

static void markers_hide_the_siblings_without_one(void **state)
{
    (void)state;
    expect(RUN_OF("step_5/pytorch_model.bin", "step_5/COMPLETED",
                  "step_10/pytorch_model.bin", "epoch_0/pytorch_model.bin",
                  "final/pytorch_model.bin"),
           "epoch_0#0! final step_10#10! step_5#5");
    expect(RUN_OF("step_5/pytorch_model.bin", "step_5/.checkpoint_complete",
                  "step_10/pytorch_model.bin"),
           "step_10#10! step_5#5");
    /* One run's habit is not another's. */
    expect(RUN_OF("a/step_5/pytorch_model.bin", "a/step_5/COMPLETED",
                  "b/step_5/pytorch_model.bin"),
           "a/step_5#5 b/step_5#5");
    /* The root's marker is the final model's, not its steps'. */
    expect(RUN_OF("pytorch_model.bin", ".checkpoint_complete", "step_5/pytorch_model.bin"),
           ". step_5#5");
    expect(RUN_OF("step_5/pytorch_model.bin", "step_6/pytorch_model.bin"),
           "step_5#5 step_6#6");
    assert_string_equal(why_of(RUN_OF("step_1/pytorch_model.bin", "step_1/COMPLETED",
                                      "step_2/pytorch_model.bin"),
                               "step_2"),
                        "no 'COMPLETED' or '.checkpoint_complete', which other steps have");
}

static void a_marker_counts_for_what_is_below_it(void **state)
{
    (void)state;
    expect(RUN_OF("global_step_8/actor/model_world_size_1_rank_0.pt",
                  "global_step_8/COMPLETED",
                  "global_step_9/actor/model_world_size_1_rank_0.pt"),
           "global_step_8/actor#8 global_step_9/actor#9!");
}

static void verl_has_several_models_in_one_step(void **state)
{
    (void)state;
    expect(RUN_OF("latest_checkpointed_iteration.txt", "global_step_8/data.pt",
                  "global_step_8/actor/model_world_size_1_rank_0.pt",
                  "global_step_8/actor/optim_world_size_1_rank_0.pt",
                  "global_step_8/actor/huggingface/config.json",
                  "global_step_8/critic/model_world_size_1_rank_0.pt"),
           "global_step_8/actor#8 global_step_8/critic#8");
}

static void torchtitans_steps_are_dcp_directories(void **state)
{
    (void)state;
    expect(RUN_OF("checkpoint/step-5/.metadata", "checkpoint/step-5/__0_0.distcp",
                  "checkpoint/step-10/.metadata", "checkpoint/step-15/notes.txt"),
           "checkpoint/step-10#10 checkpoint/step-5#5");
}

static void deepspeed_tags_are_steps_of_their_root(void **state)
{
    (void)state;
    expect(RUN_OF("global_step5/mp_rank_00_model_states.pt",
                  "global_step10/mp_rank_00_model_states.pt", "latest"),
           ". global_step10#10 global_step5#5");
    /* A single one is what the root shows. */
    expect(RUN_OF("global_step5/mp_rank_00_model_states.pt", "latest"), ".");
    expect(RUN_OF("_actor/global_step5/mp_rank_00_model_states.pt", "_actor/latest",
                  "_actor/global_step6/mp_rank_00_model_states.pt",
                  "_critic/global_step5/mp_rank_00_model_states.pt", "_critic/latest"),
           "_actor _actor/global_step5#5 _actor/global_step6#6 _critic");
}

static void a_tag_is_found_in_its_root(void **state)
{
    struct gf_dir *dir = RUN_OF("x/global_step5/mp_rank_00_model_states.pt",
                                "x/global_step6/mp_rank_00_model_states.pt", "x/latest");
    struct gf_steps steps;
    const struct gf_step *step;

    (void)state;
    GF_OK(gf_steps_find(dir, NULL, &steps, &t_err));
    step = gf_steps_get(&steps, "x/global_step6");
    assert_non_null(step);
    assert_string_equal(step->dir, "x");
    assert_string_equal(step->tag, "global_step6");
    assert_null(step->file);
    assert_null(gf_steps_get(&steps, "x/global_step"));
    gf_steps_done(&steps);
    gf_dir_free(dir);
}

static void lightnings_files_are_steps(void **state)
{
    struct gf_dir *dir =
        RUN_OF("lightning_logs/version_0/checkpoints/epoch=0-step=10.ckpt");
    struct gf_steps steps;

    (void)state;
    GF_OK(gf_steps_find(dir, NULL, &steps, &t_err));
    assert_int_equal(steps.at.n, 1);
    assert_string_equal(steps.at.at[0].dir, "lightning_logs/version_0/checkpoints");
    assert_string_equal(steps.at.at[0].file, "epoch=0-step=10.ckpt");
    gf_steps_done(&steps);
    gf_dir_free(dir);
    expect(RUN_OF("epoch=0-step=10.ckpt", "last.ckpt", "notes.txt"),
           "epoch=0-step=10#10 last");
    /* Its name without the end is somebody else's. */
    expect(RUN_OF("a/model.safetensors", "a.ckpt"), "a a.ckpt");
}

static void what_holds_no_weights_is_no_step(void **state)
{
    (void)state;
    expect(RUN_OF("checkpoint-1/trainer_state.json", "checkpoint-1/optimizer.pt",
                  "step_1/COMPLETED", "merged/config.json", ".git/model.safetensors",
                  "wandb/checkpoint-1/model.safetensors", "optimizer_0/.metadata",
                  "a/b/c/d/model.safetensors"),
           "");
}

static void layouts_of_equal_rank_are_hidden_with_the_reason(void **state)
{
    const char *why =
        why_of(RUN_OF("step_1/pytorch_model_fsdp_0/.metadata", "step_1/latest",
                      "step_1/global_step5/mp_rank_00_model_states.pt"),
               "step_1");

    (void)state;
    assert_non_null(strstr(why, "could be 'dcp'"));
    assert_non_null(strstr(why, "or 'deepspeed'"));
}

/* ---- the best ---- */

static char *best_of(const char *json, const char *latest)
{
    struct gf_dir *dir = RUN_OF("checkpoint-1/model.safetensors");
    char path[64], *best;

    snprintf(path, sizeof(path), "%s/trainer_state.json", latest);
    GF_OK(gf_dir_mem_add(dir, path, json, strlen(json), &t_err));
    best = gf_step_best(dir, latest);
    gf_dir_free(dir);
    return best;
}

static void the_best_is_what_the_newest_state_says(void **state)
{
    static const struct {
        const char *json, *latest, *best;
    } want[] = {
        { "{\"best_model_checkpoint\": \"out/checkpoint-1\"}", "checkpoint-2",
          "checkpoint-1" },
        { "{\"best_model_checkpoint\": \"./out/checkpoint-1/\"}", "checkpoint-2",
          "checkpoint-1" },
        { "{\"best_model_checkpoint\": \"checkpoint-1\"}", "a/checkpoint-2",
          "a/checkpoint-1" },
        { "{\"best_model_checkpoint\": null}", "checkpoint-2", NULL },
        { "{\"best_model_checkpoint\": \"\"}", "checkpoint-2", NULL },
        { "{\"best_model_checkpoint\": 3}", "checkpoint-2", NULL },
        { "{\"best_model_checkpoint\": \"../..\"}", "checkpoint-2", ".." },
        { "{}", "checkpoint-2", NULL },
        { "{", "checkpoint-2", NULL },
    };

    (void)state;
    for (size_t i = 0; i < GF_COUNT(want); i++) {
        char *best = best_of(want[i].json, want[i].latest);

        if (want[i].best)
            assert_string_equal(best, want[i].best);
        else
            assert_null(best);
        free(best);
    }
}

static void trlxs_best_is_a_directory(void **state)
{
    struct gf_dir *dir =
        RUN_OF("a/checkpoint_1/pytorch_model.bin", "a/best_checkpoint/pytorch_model.bin");
    char *best = gf_step_best(dir, "a/checkpoint_1");

    (void)state;
    assert_string_equal(best, "a/best_checkpoint");
    free(best);
    assert_null(gf_step_best(dir, "checkpoint_1"));
    gf_dir_free(dir);
}

/* ---- looking again ---- */

/* A directory whose times the test decides, and which counts what it is asked. */
struct clocked {
    struct gf_dir base;
    struct gf_dir *top;
    int64_t times[16];
    char paths[16][64];
    size_t n;
    unsigned lists, stats;
};

static int clocked_list(struct gf_dir *dir, const char *path, struct gf_dir_listing *ret,
                        struct gf_err *err)
{
    struct clocked *c = (struct clocked *)dir;

    c->lists++;
    return gf_dir_list(c->top, path, ret, err);
}

static int clocked_open(struct gf_dir *dir, const char *path, struct gf_source **ret,
                        struct gf_err *err)
{
    return gf_dir_open(((struct clocked *)dir)->top, path, ret, err);
}

static int clocked_stat(struct gf_dir *dir, const char *path, struct gf_dir_entry *ret)
{
    struct clocked *c = (struct clocked *)dir;
    int r = gf_dir_stat(c->top, path, ret);

    c->stats++;
    for (size_t i = 0; i < c->n && !r; i++)
        if (strcmp(c->paths[i], path) == 0)
            ret->identity.mtime_ns = c->times[i];
    return r;
}

static const struct gf_dir_ops clocked_ops = { .list = clocked_list,
                                               .open = clocked_open,
                                               .stat = clocked_stat };

static struct clocked clocked(struct gf_dir *top)
{
    return (struct clocked){
        .base = { .ops = &clocked_ops, .name = top->name, .limits = top->limits },
        .top = top
    };
}

static void touch(struct clocked *c, const char *path, int64_t time)
{
    for (size_t i = 0; i < c->n; i++)
        if (strcmp(c->paths[i], path) == 0) {
            c->times[i] = time;
            return;
        }
    snprintf(c->paths[c->n], sizeof(c->paths[0]), "%s", path);
    c->times[c->n++] = time;
}

static void unchanged_directories_are_not_looked_into_again(void **state)
{
    struct gf_dir *dir =
        RUN_OF("checkpoint-1/model.safetensors", "checkpoint-1/trainer_state.json",
               "checkpoint-2/model.safetensors", "checkpoint-2/trainer_state.json",
               "checkpoint-3/model.safetensors", "data/x.txt");
    struct clocked c = clocked(dir);
    struct gf_steps first, second;
    unsigned lists;

    (void)state;
    GF_OK(gf_steps_find(&c.base, NULL, &first, &t_err));
    c.stats = 0;
    assert_false(gf_steps_stale(&c.base, &first));
    assert_int_equal(c.stats, 3); /* the root, the unfinished one, the other directory */

    touch(&c, "data", 5);
    assert_true(gf_steps_stale(&c.base, &first));
    touch(&c, "data", 0);
    assert_false(gf_steps_stale(&c.base, &first));

    /* It is finished now; only it and what holds it are looked into. */
    GF_OK(gf_dir_mem_add(dir, "checkpoint-3/trainer_state.json", "{}", 2, &t_err));
    touch(&c, "checkpoint-3", 7);
    assert_true(gf_steps_stale(&c.base, &first));
    lists = c.lists;
    GF_OK(gf_steps_find(&c.base, &first, &second, &t_err));
    lists = c.lists - lists;
    assert_int_equal(second.at.n, 3);
    for (size_t i = 0; i < 3; i++)
        assert_true(second.at.at[i].complete);
    gf_steps_done(&first);
    c.lists = 0;
    GF_OK(gf_steps_find(&c.base, NULL, &first, &t_err));
    assert_true(c.lists > lists);
    gf_steps_done(&first);
    gf_steps_done(&second);
    gf_dir_free(dir);
}

static void what_changed_a_moment_ago_is_looked_at_again(void **state)
{
    struct gf_dir *dir = RUN_OF("checkpoint-1/model.safetensors");
    struct clocked c = clocked(dir);
    struct timespec now;
    struct gf_steps steps;

    (void)state;
    clock_gettime(CLOCK_REALTIME, &now);
    touch(&c, "checkpoint-1", now.tv_sec * 1000000000);
    GF_OK(gf_steps_find(&c.base, NULL, &steps, &t_err));
    assert_true(gf_steps_stale(&c.base, &steps)); /* the clock of files is coarse */
    gf_steps_done(&steps);
    touch(&c, "checkpoint-1", (now.tv_sec - 10) * 1000000000);
    GF_OK(gf_steps_find(&c.base, NULL, &steps, &t_err));
    assert_false(gf_steps_stale(&c.base, &steps));
    gf_steps_done(&steps);
    gf_dir_free(dir);
}

static void a_marker_that_comes_later_hides_what_had_settled(void **state)
{
    struct gf_dir *dir = RUN_OF("step_1/pytorch_model.bin", "step_2/pytorch_model.bin");
    struct clocked c = clocked(dir);
    struct gf_steps first, second;

    (void)state;
    GF_OK(gf_steps_find(&c.base, NULL, &first, &t_err));
    assert_true(gf_steps_get(&first, "step_1")->complete);
    GF_OK(gf_dir_mem_add(dir, "step_2/COMPLETED", "", 0, &t_err));
    touch(&c, "step_2", 7);
    GF_OK(gf_steps_find(&c.base, &first, &second, &t_err));
    assert_false(gf_steps_get(&second, "step_1")->complete);
    assert_true(gf_steps_get(&second, "step_2")->complete);
    gf_steps_done(&first);
    gf_steps_done(&second);
    gf_dir_free(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_are_those_of_known_names),
        cmocka_unit_test(a_trainers_step_is_finished_when_its_state_is_there),
        cmocka_unit_test(snapshots_of_ours_are_finished_without_a_state),
        cmocka_unit_test(a_final_model_at_the_root_has_its_steps_below),
        cmocka_unit_test(a_trainers_fsdp_and_deepspeed_steps_are_one_checkpoint_each),
        cmocka_unit_test(accelerates_state_is_finished_with_the_random_states),
        cmocka_unit_test(a_second_model_of_accelerate_is_below_its_step),
        cmocka_unit_test(a_checkpoint_as_source_has_no_parts_below),
        cmocka_unit_test(trlx_has_steps_a_best_and_a_final_model),
        cmocka_unit_test(markers_hide_the_siblings_without_one),
        cmocka_unit_test(a_marker_counts_for_what_is_below_it),
        cmocka_unit_test(verl_has_several_models_in_one_step),
        cmocka_unit_test(torchtitans_steps_are_dcp_directories),
        cmocka_unit_test(deepspeed_tags_are_steps_of_their_root),
        cmocka_unit_test(a_tag_is_found_in_its_root),
        cmocka_unit_test(lightnings_files_are_steps),
        cmocka_unit_test(what_holds_no_weights_is_no_step),
        cmocka_unit_test(layouts_of_equal_rank_are_hidden_with_the_reason),
        cmocka_unit_test(the_best_is_what_the_newest_state_says),
        cmocka_unit_test(trlxs_best_is_a_directory),
        cmocka_unit_test(unchanged_directories_are_not_looked_into_again),
        cmocka_unit_test(what_changed_a_moment_ago_is_looked_at_again),
        cmocka_unit_test(a_marker_that_comes_later_hides_what_had_settled),
    };

    return cmocka_run_group_tests_name("steps", tests, NULL, NULL);
}
