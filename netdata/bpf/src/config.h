/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * config.h: what the loader knows before the programs run. The values are
 * written into .rodata, so the verifier removes the branches they rule out.
 */
#pragma once

#include "family.h"

struct node_config {
	__u64 netns_cookie;      /* only sockets of this namespace are translated */
	struct addr node;        /* the node's address on its uplink */
	struct addr dns;         /* cluster DNS: served by the node itself, never balanced */
	struct addr service_net; /* service range; already masked */
	struct addr service_mask;
	struct addr pod_net;     /* range of all pods of the cluster; already masked */
	struct addr pod_mask;
	struct addr hairpin;     /* source of a pod that reaches itself through a Service */
	__u16 snat_min;          /* host order; outside ip_local_port_range */
	__u16 snat_max;
	__u32 pad;
};
SIZE_ASSERT(struct node_config, 48, 128);

volatile const struct node_config cfg;

#define CFG_ADDR(field)                                          \
	({                                                       \
		struct addr _a;                                  \
		for (int _i = 0; _i < ADDR_WORDS; _i++)          \
			_a.word[_i] = cfg.field.word[_i];        \
		_a;                                              \
	})

static __always_inline int is_node(const struct addr *a)
{
	struct addr node = CFG_ADDR(node);

	return addr_equal(a, &node);
}

static __always_inline int is_dns(const struct addr *a)
{
	struct addr dns = CFG_ADDR(dns);

	return addr_equal(a, &dns);
}

static __always_inline int in_pod_range(const struct addr *a)
{
	struct addr net = CFG_ADDR(pod_net), mask = CFG_ADDR(pod_mask);

	return addr_in(a, &net, &mask);
}

static __always_inline int in_service_range(const struct addr *a)
{
	struct addr net = CFG_ADDR(service_net), mask = CFG_ADDR(service_mask);

	return addr_in(a, &net, &mask) && !is_dns(a);
}
