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
	PICK_DROP_NO_LOCAL_ENDPOINT,
	PICK_DROP_SOURCE_RANGE,
	PICK_UNKNOWN_YET,         /* in the service range, but the table is not complete */
};

static __always_inline int is_node_addr(const struct addr *a)
{
	struct addr key = *a; /* see BORDER */

	return is_node(a) || bpf_map_lookup_elem(&node_addrs, &key);
}

/*
 * find_service looks for the address itself first, then, on an address of the node, for
 * a node port or host port.
 */
static __always_inline struct service *find_service(const struct tuple *t, enum service_scope scope)
{
	struct service_key key = { .addr = t->daddr, .port = t->dport, .proto = t->proto };
	struct service *s = bpf_map_lookup_elem(&services, &key);

	if (!s) {
		if (in_service_range(&t->daddr) || !is_node_addr(&t->daddr))
			return 0;
		__builtin_memset(&key.addr, 0, sizeof(key.addr));
		s = bpf_map_lookup_elem(&services, &key);
	}
	if (s && scope == SCOPE_OUTSIDE && s->flags & SERVICE_OUTSIDE_VIEW) {
		key.scope = SCOPE_OUTSIDE;
		s = bpf_map_lookup_elem(&services, &key);
	}
	return s;
}

static __always_inline int source_allowed(const struct service *s, const struct addr *client)
{
	struct source_range_key key = { .prefix = 32 + 8 * ADDR_LEN, .service = s->id, .client = *client };

	return !(s->flags & SERVICE_SOURCE_RANGES) || bpf_map_lookup_elem(&source_ranges, &key);
}

/* A tick is 15/16 of a second to within 1 %, see now(); rounded up. */
static __always_inline __u32 ticks_of(__u32 seconds)
{
	return seconds - seconds / 16 + 1;
}

static __always_inline int pick_sticky(const struct service *s, const struct addr *client, struct slot *out)
{
	struct affinity_key key = { .client = *client, .service = s->id };
	struct affinity *a = bpf_map_lookup_elem(&affinities, &key);
	__u32 tick = now();

	if (!a || tick - a->seen > ticks_of(s->affinity))
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

/*
 * pick_backend chooses a backend for a new flow, given its tuple as the client
 * knows it.
 */
BORDER int pick_backend(const struct tuple *t, enum service_scope scope, struct slot *out)
{
	struct service *s;
	struct slot *b;
	__u32 n, index;

	if (!t || !out)
		return PICK_NONE;
	s = find_service(t, scope);
	if (!s)
		return pick_unknown(&t->daddr);
	if (!source_allowed(s, &t->saddr))
		return PICK_DROP_SOURCE_RANGE;
	n = s->count;
	if (!n)
		return s->flags & SERVICE_DROP_EMPTY ? PICK_DROP_NO_LOCAL_ENDPOINT : PICK_REFUSE_NO_ENDPOINT;
	if (s->affinity && pick_sticky(s, &t->saddr, out))
		return PICK_BACKEND;
	index = s->base + (n == 1 ? 0 : bpf_get_prandom_u32() % n);
	b = bpf_map_lookup_elem(&slots, &index);
	if (!b)
		return PICK_REFUSE_NO_ENDPOINT;
	*out = *b;
	if (s->affinity)
		remember_sticky(s, &t->saddr, out);
	return PICK_BACKEND;
}
