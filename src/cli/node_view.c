#include "cli/node_view.h"

#include <jansson.h>
#include <string.h>
#include <time.h>

#define ASK_EVERY_MS 300

void at_node_view_log(void *user, enum at_node_log_kind kind, const char *line)
{
    struct at_node_view *v = user;
    const struct at_screen *s = &v->screen;
    char when[16] = "";
    struct tm tm;
    time_t now = time(NULL);
    if (localtime_r(&now, &tm) != NULL) strftime(when, sizeof when, "%H:%M:%S", &tm);
    bool warning = kind == AT_NODE_LOG_WARNING;
    pthread_mutex_lock(&v->mutex);
    at_screen_say(&v->screen, "%s%s%s  %s%s%s", at_style(s, AT_STYLE_DIM), when, at_style(s, AT_STYLE_PLAIN),
                  warning ? at_style(s, AT_STYLE_YELLOW) : "", line, warning ? at_style(s, AT_STYLE_PLAIN) : "");
    pthread_mutex_unlock(&v->mutex);
}

static double number(const json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key));
}

static void show(struct at_node_view *v, const json_t *o)
{
    const char *phase = json_string_value(json_object_get(o, "phase"));
    double steps = number(o, "steps"), rounds = number(o, "rounds");
    uint32_t done = (uint32_t)number(o, "rounds_done");
    const json_t *loss = json_object_get(o, "heldout_loss_last");
    const struct at_screen *s = &v->screen;
    char loss_text[48] = "-", line[512];
    if (json_is_number(loss)) /* mostly one round behind: a round tells the loss that it began with */
        snprintf(loss_text, sizeof loss_text, "%.4f after round %.0f", json_number_value(loss),
                 number(o, "heldout_rounds"));
    if (v->screen.live) {
        double within = steps > 0 ? number(o, "step") / steps : 0;
        snprintf(line, sizeof line,
                 "%s%-10s%s round %.0f/%.0f %s step %.0f/%.0f  held-out %s  %s tok/s  +%s pending  %s confirmed",
                 at_style(s, AT_STYLE_BOLD), phase != NULL ? phase : "", at_style(s, AT_STYLE_PLAIN),
                 done < rounds ? done + 1.0 : rounds, rounds, at_bar(s, within, 10).s, number(o, "step"), steps,
                 loss_text, at_count(number(o, "tokens_per_s")).s, at_points((uint64_t)number(o, "points_pending")).s,
                 at_points((uint64_t)number(o, "points_confirmed")).s);
        at_screen_draw(&v->screen, (const char *const[]){line}, 1);
    } else if (done > v->rounds_shown) {
        at_screen_say(&v->screen, "round %u/%.0f  held-out %s  %s tokens  %s points confirmed", done, rounds, loss_text,
                      at_count(number(o, "tokens")).s, at_points((uint64_t)number(o, "points_confirmed")).s);
    }
    v->rounds_shown = done;
}

/* False when it is time to stop. */
static bool wait_a_little(struct at_node_view *v)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += (long)ASK_EVERY_MS * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec++;
    }
    pthread_mutex_lock(&v->mutex);
    if (!v->stop) pthread_cond_timedwait(&v->wake, &v->mutex, &until);
    bool go_on = !v->stop;
    pthread_mutex_unlock(&v->mutex);
    return go_on;
}

static void *watch(void *arg)
{
    struct at_node_view *v = arg;
    while (wait_a_little(v)) {
        struct at_buf text = {.bytes_max = (size_t)16 << 20};
        json_t *object = NULL;
        if (at_control_call(v->dir, "status", 1000, NULL, &text) == AT_OK)
            object = json_loadb((const char *)text.p, text.n, JSON_REJECT_DUPLICATES, NULL);
        pthread_mutex_lock(&v->mutex);
        if (!v->stop && json_is_true(json_object_get(object, "ok"))) show(v, object);
        pthread_mutex_unlock(&v->mutex);
        json_decref(object);
        at_buf_release(&text);
    }
    return NULL;
}

void at_node_view_start(struct at_node_view *view, const char *dir)
{
    memset(view, 0, sizeof *view);
    at_screen_init(&view->screen, stderr);
    view->dir = dir;
    pthread_mutex_init(&view->mutex, NULL);
    pthread_cond_init(&view->wake, NULL);
    view->started = pthread_create(&view->thread, NULL, watch, view) == 0;
}

void at_node_view_stop(struct at_node_view *view)
{
    pthread_mutex_lock(&view->mutex);
    view->stop = true;
    pthread_cond_signal(&view->wake);
    pthread_mutex_unlock(&view->mutex);
    if (view->started) pthread_join(view->thread, NULL);
    at_screen_clear(&view->screen);
    pthread_cond_destroy(&view->wake);
    pthread_mutex_destroy(&view->mutex);
}
