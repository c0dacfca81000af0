#include "wire/measure.h"

uint64_t at_measure_value(uint8_t code)
{
    return code < 8 ? code : (uint64_t)(8 + code % 8) << (code / 8 - 1);
}

uint8_t at_measure_code(uint64_t value)
{
    int low = 0, high = 255; /* the largest code whose value is not larger */
    while (low < high) {
        int mid = (low + high + 1) / 2;
        if (at_measure_value((uint8_t)mid) <= value)
            low = mid;
        else
            high = mid - 1;
    }
    return (uint8_t)low;
}

size_t at_measure_pack(const struct at_measure *m, uint8_t ret[AT_MEASURE_LINKS * AT_MEASURE_LINK_BYTES])
{
    for (size_t i = 0; i < m->link_count; i++) {
        uint8_t *p = ret + i * AT_MEASURE_LINK_BYTES;
        p[0] = (uint8_t)m->link[i].replica;
        p[1] = (uint8_t)(m->link[i].replica >> 8);
        p[2] = m->link[i].rtt;
    }
    return (size_t)m->link_count * AT_MEASURE_LINK_BYTES;
}

bool at_measure_unpack(struct at_span bytes, struct at_measure *ret_m)
{
    if (bytes.n % AT_MEASURE_LINK_BYTES != 0 || bytes.n > AT_MEASURE_LINKS * AT_MEASURE_LINK_BYTES) return false;
    ret_m->link_count = (uint8_t)(bytes.n / AT_MEASURE_LINK_BYTES);
    for (size_t i = 0; i < ret_m->link_count; i++) {
        const uint8_t *p = bytes.p + i * AT_MEASURE_LINK_BYTES;
        ret_m->link[i] = (struct at_measure_link){.replica = (uint16_t)(p[0] | p[1] << 8), .rtt = p[2]};
    }
    return true;
}

size_t at_measure_pack_rates(const struct at_measure *m, uint8_t ret[AT_MEASURE_LINKS])
{
    bool known = false;
    for (size_t i = 0; i < m->link_count; i++) {
        ret[i] = m->link[i].rate;
        known = known || ret[i] != 0;
    }
    return known ? m->link_count : 0;
}

bool at_measure_unpack_rates(struct at_span bytes, struct at_measure *ret_m)
{
    if (bytes.n != 0 && bytes.n != ret_m->link_count) return false;
    for (size_t i = 0; i < bytes.n; i++) ret_m->link[i].rate = bytes.p[i];
    return true;
}

const char *at_measure_wrong(const struct at_measure *m)
{
    if (m->speed == 0) return "speed";
    if (m->memory == 0) return "memory";
    if (m->link_count > AT_MEASURE_LINKS) return "links";
    for (size_t i = 0; i < m->link_count; i++)
        if (m->link[i].rtt == 0 || (i > 0 && m->link[i].replica <= m->link[i - 1].replica)) return "links";
    return NULL;
}
