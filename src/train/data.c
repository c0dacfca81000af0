#include "train/data.h"

#include "base/rng.h"

/* Length of the UTF-8 sequence at p (RFC 3629: no overlong forms, no surrogates, at most U+10FFFF), or 0 when it is
 * bad. */
static size_t utf8_length(const uint8_t *p, size_t n)
{
    uint8_t a = p[0];
    if (a < 0x80) return a != 0 ? 1 : 0;
    size_t len = a >= 0xC2 && a <= 0xDF ? 2 : a >= 0xE0 && a <= 0xEF ? 3 : a >= 0xF0 && a <= 0xF4 ? 4 : 0;
    if (len == 0 || n < len) return 0;
    uint8_t lo = a == 0xE0 ? 0xA0 : a == 0xF0 ? 0x90 : 0x80;
    uint8_t hi = a == 0xED ? 0x9F : a == 0xF4 ? 0x8F : 0xBF;
    if (p[1] < lo || p[1] > hi) return 0;
    for (size_t i = 2; i < len; i++)
        if ((p[i] & 0xC0) != 0x80) return 0;
    return len;
}

at_err at_text_check(struct at_span text, const char *name, struct at_diag *diag)
{
    if (text.n == 0) return at_fail(diag, AT_E_DATA, name, "the file is empty");
    for (size_t i = 0; i < text.n;) {
        size_t len = utf8_length(text.p + i, text.n - i);
        if (len == 0)
            return at_fail(diag, AT_E_DATA, name, "not a text file: %s at byte %zu",
                           text.p[i] == 0 ? "a NUL" : "invalid UTF-8", i);
        i += len;
    }
    return AT_OK;
}

static size_t heldout_count(size_t n, double fraction)
{
    return (size_t)((double)n * fraction);
}

static bool big_enough(size_t n, long seq_len, double fraction)
{
    size_t held = heldout_count(n, fraction), least = (size_t)seq_len + 1;
    return held >= least && n - held >= least;
}

size_t at_data_bytes_min(long seq_len, double heldout_fraction)
{
    AT_ASSERT(heldout_fraction > 0 && heldout_fraction < 1);
    size_t lo = 0, hi = (size_t)1 << 48; /* big_enough is false at lo, true at hi, and changes once */
    if (!big_enough(hi, seq_len, heldout_fraction)) return hi;
    while (hi - lo > 1) {
        size_t mid = lo + (hi - lo) / 2;
        if (big_enough(mid, seq_len, heldout_fraction))
            hi = mid;
        else
            lo = mid;
    }
    return hi;
}

at_err at_data_init(struct at_data *data, struct at_span text, long seq_len, uint64_t seed, double heldout_fraction,
                    size_t heldout_bytes_max, struct at_diag *diag)
{
    if (!(heldout_fraction > 0 && heldout_fraction < 1))
        return at_fail(diag, AT_E_DATA, "heldout_fraction", "must be between 0 and 1");
    size_t need = at_data_bytes_min(seq_len, heldout_fraction), window = (size_t)seq_len + 1;
    if (text.n < need)
        return at_fail(diag, AT_E_DATA, "text",
                       "%zu bytes of text are too few: %zu are needed for samples of %ld and a held-out part of %g %%",
                       text.n, need, seq_len, heldout_fraction * 100);
    if (heldout_bytes_max < window) return at_fail(diag, AT_E_DATA, "heldout_bytes", "must be at least %zu", window);
    size_t held = heldout_count(text.n, heldout_fraction), used = held < heldout_bytes_max ? held : heldout_bytes_max;
    *data = (struct at_data){.train = at_span(text.p, text.n - held),
                             .heldout = at_span(text.p + (text.n - held), held),
                             .samples = (text.n - held - 1) / (size_t)seq_len,
                             .seed = seed,
                             .seq_len = seq_len,
                             .windows = (long)((used - 1) / (size_t)seq_len)};
    return AT_OK;
}

static uint64_t feistel(uint64_t seed, uint32_t pass, int half_bits, uint64_t x)
{
    uint64_t mask = ((uint64_t)1 << half_bits) - 1, left = x >> half_bits, right = x & mask;
    for (uint64_t round = 0; round < 6; round++) {
        uint64_t f = at_philox(seed, AT_RNG_SAMPLE_ORDER, pass, round << 32 | right).v[0] & mask;
        uint64_t next = left ^ f;
        left = right;
        right = next;
    }
    return left << half_bits | right;
}

uint64_t at_data_permute(uint64_t seed, uint32_t pass, uint64_t samples, uint64_t index)
{
    AT_ASSERT(samples >= 1 && samples < (uint64_t)1 << 62 && index < samples);
    int half_bits = 1;
    while ((uint64_t)1 << (2 * half_bits) < samples) half_bits++;
    do index = feistel(seed, pass, half_bits, index);
    while (index >= samples);
    return index;
}

static void read_tokens(const uint8_t *p, long n, int32_t *ret_input, int32_t *ret_target)
{
    for (long i = 0; i < n; i++) {
        ret_input[i] = p[i];
        ret_target[i] = p[i + 1];
    }
}

void at_data_sample(const struct at_data *data, uint64_t j, int32_t *ret_input, int32_t *ret_target)
{
    uint64_t i = at_data_permute(data->seed, (uint32_t)(j / data->samples), data->samples, j % data->samples);
    read_tokens(data->train.p + i * (uint64_t)data->seq_len, data->seq_len, ret_input, ret_target);
}

void at_data_window(const struct at_data *data, long w, int32_t *ret_input, int32_t *ret_target)
{
    AT_ASSERT(w >= 0 && w < data->windows);
    read_tokens(data->heldout.p + w * data->seq_len, data->seq_len, ret_input, ret_target);
}
