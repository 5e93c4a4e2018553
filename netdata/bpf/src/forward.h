/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * forward.h: sending a translated packet on to another machine. It came in from the wire
 * and now carries an address of this node as its source, which the stack would
 * not believe; so it is sent from here, by the stack's routes. Only what goes into a tunnel is left to the
 * stack, which makes it fit, and is told to believe it as long as there are tunnels.
 */
#pragma once

#include "packet.h"

#if FAMILY == 4
#define AF_FAMILY 2
#else
#define AF_FAMILY 10
#endif

BORDER int forward(struct __sk_buff *skb, const struct packet *p)
{
	struct bpf_fib_lookup route = { .family = AF_FAMILY, .ifindex = skb->ifindex };
	long found;

	if (!p)
		return TC_ACT_SHOT;
	route.l4_protocol = p->t.proto;
#if FAMILY == 4
	route.ipv4_src = p->t.saddr.word[0];
	route.ipv4_dst = p->t.daddr.word[0];
#else
	__builtin_memcpy(route.ipv6_src, &p->t.saddr, ADDR_LEN);
	__builtin_memcpy(route.ipv6_dst, &p->t.daddr, ADDR_LEN);
#endif
	found = bpf_fib_lookup(skb, &route, sizeof(route), 0);
	/* Without a route, too big or out of hops: the stack knows how to say so. A tunnel's route is not looked into. */
	if (found != BPF_FIB_LKUP_RET_SUCCESS && found != BPF_FIB_LKUP_RET_NO_NEIGH)
		return PASS;
	if (!hop_limit_dec(skb))
		return PASS;
	return bpf_redirect_neigh(route.ifindex, 0, 0, 0);
}
