/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* balance.h: the per-packet service path shared by pods and the uplink. */
#pragma once

#include "icmp.h"
#include "refuse.h"
#include "service.h"

enum step {
	STEP_AS_IS,      /* not translated */
	STEP_TRANSLATED, /* p->t is the new tuple */
	STEP_VERDICT,    /* *verdict says what becomes of the packet */
};

static __always_inline enum step verdict_is(int *verdict, int what)
{
	*verdict = what;
	return STEP_VERDICT;
}

static __always_inline enum step apply(struct __sk_buff *skb, struct packet *p, const struct tuple *to, int *verdict)
{
	if (rewrite(skb, p, to))
		return verdict_is(verdict, drop(DROP_REWRITE));
	return STEP_TRANSLATED;
}

/*
 * A row of the nat table is used as it is, with one exception: a connection
 * request to a service whose last connection on these ports is over, or was never
 * answered, is balanced anew.
 */
static __always_inline int nat_usable(const struct nat *n, const struct packet *p, const struct tuple *to)
{
	return !n->to_real || p->t.proto != IPPROTO_TCP || !starts_flow(p) || ct_live(to);
}

static __always_inline enum step translate_known(struct __sk_buff *skb, struct packet *p, __u16 scope, int *verdict)
{
	struct nat *n = bpf_map_lookup_elem(&nats, &p->t);
	struct tuple to;

	if (!n || !(n->scope & scope))
		return STEP_AS_IS;
	nat_apply(n, &p->t, &to);
	if (!nat_usable(n, p, &to))
		return STEP_AS_IS;
	if (n->to_real)
		p->real = to;
	return apply(skb, p, &to, verdict);
}

static __always_inline enum step balance_new(struct __sk_buff *skb, struct packet *p, __u16 scope,
					     enum answer_to origin, int *verdict)
{
	struct slot backend = {};
	struct tuple want;

	if (p->t.proto != IPPROTO_TCP && p->t.proto != IPPROTO_UDP) {
		/* ping of a service address: nobody is there, and it must not leave the node */
		if (in_service_range(&p->t.daddr))
			return verdict_is(verdict, drop(DROP_PROTOCOL));
		return STEP_AS_IS;
	}
	if (!starts_flow(p)) {
		/* State was lost. Say so, and the client opens a new connection. */
		if (in_service_range(&p->t.daddr))
			return verdict_is(verdict, refuse(skb, p, origin, REFUSED_NO_FLOW));
		return STEP_AS_IS;
	}
	switch (pick_backend(&p->t.daddr, p->t.dport, p->t.proto, &p->t.saddr, &backend)) {
	case PICK_NONE:
		return STEP_AS_IS;
	case PICK_REFUSE_NO_ENDPOINT:
		return verdict_is(verdict, refuse(skb, p, origin, REFUSED_NO_ENDPOINT));
	case PICK_REFUSE_NO_SERVICE:
		return verdict_is(verdict, refuse(skb, p, origin, REFUSED_NO_SERVICE));
	case PICK_UNKNOWN_YET:
		return verdict_is(verdict, drop(DROP_SERVICES_NOT_SYNCED));
	}
	want = p->t;
	want.daddr = backend.addr;
	want.dport = backend.port;
	/* A pod that reaches itself would answer itself past this program. */
	if (addr_equal(&want.daddr, &want.saddr))
		want.saddr = CFG_ADDR(hairpin);
	if (!nat_create(&p->t, &want, scope, 1, 0))
		return verdict_is(verdict, drop(DROP_NO_SNAT_PORT));
	p->real = want;
	return apply(skb, p, &want, verdict);
}

static __always_inline enum step translate_error(struct __sk_buff *skb, struct packet *p, __u16 scope, int *verdict)
{
	switch (translate_icmp_error(skb, p, scope)) {
	case 1:
		return STEP_TRANSLATED;
	case 0:
		return STEP_AS_IS;
	default:
		return verdict_is(verdict, drop(DROP_REWRITE));
	}
}
