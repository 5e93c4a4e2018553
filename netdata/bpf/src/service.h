/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* service.h: from a service address to one of its backends. */
#pragma once

#include "config.h"
#include "drop.h"
#include "tables.h"

enum pick_result {
	PICK_NONE,                /* not a service: leave the packet as it is */
	PICK_BACKEND,
	PICK_REFUSE_NO_ENDPOINT,
	PICK_REFUSE_NO_SERVICE,
	PICK_UNKNOWN_YET,         /* in the service range, but the table is not complete */
};

static __always_inline int pick_sticky(const struct service *s, const struct addr *client, struct slot *out)
{
	struct affinity_key key = { .client = *client, .service = s->id };
	struct affinity *a = bpf_map_lookup_elem(&affinities, &key);
	__u32 tick = now();

	/* A tick is 1.07 s; the timeout may run over by as much, never under. */
	if (!a || tick - a->seen > s->affinity)
		return 0;
	a->seen = tick;
	out->addr = a->addr;
	out->port = a->port;
	return 1;
}

static __always_inline void remember_sticky(const struct service *s, const struct addr *client, const struct slot *b)
{
	struct affinity_key key = { .client = *client, .service = s->id };
	struct affinity a = { .addr = b->addr, .port = b->port, .seen = now() };

	bpf_map_update_elem(&affinities, &key, &a, BPF_ANY);
}

static __always_inline int pick_unknown(const struct addr *dst)
{
	struct node_state *ns;

	if (!in_service_range(dst))
		return PICK_NONE;
	ns = node_state();
	return ns && ns->services_synced ? PICK_REFUSE_NO_SERVICE : PICK_UNKNOWN_YET;
}

/* pick_backend chooses a backend for a new flow from client to dst:port. */
static __always_inline int pick_backend(const struct addr *dst, __be16 port, __u8 proto,
					const struct addr *client, struct slot *out)
{
	struct service_key key = { .addr = *dst, .port = port, .proto = proto };
	struct service *s = bpf_map_lookup_elem(&services, &key);
	struct slot *b;
	__u32 n, index;

	if (!s)
		return pick_unknown(dst);
	n = s->count;
	if (!n)
		return PICK_REFUSE_NO_ENDPOINT;
	if (s->affinity && pick_sticky(s, client, out))
		return PICK_BACKEND;
	index = s->base + (n == 1 ? 0 : bpf_get_prandom_u32() % n);
	b = bpf_map_lookup_elem(&slots, &index);
	if (!b)
		return PICK_REFUSE_NO_ENDPOINT;
	*out = *b;
	if (s->affinity)
		remember_sticky(s, client, out);
	return PICK_BACKEND;
}
