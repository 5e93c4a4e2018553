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
	return !n->to_real || !has_handshake(p->t.proto) || !starts_flow(p) || ct_live(to);
}

static __always_inline enum step translate_by(struct __sk_buff *skb, struct packet *p, const struct nat *n, int *verdict)
{
	struct tuple to;

	nat_apply(n, &p->t, &to);
	if (!nat_usable(n, p, &to))
		return STEP_AS_IS;
	if (n->to_real)
		p->real = to;
	return apply(skb, p, &to, verdict);
}

static __always_inline enum step translate_known(struct __sk_buff *skb, struct packet *p, __u16 scope, int *verdict)
{
	struct nat *n = bpf_map_lookup_elem(&nats, &p->t);

	if (!n || !(n->scope & scope))
		return STEP_AS_IS;
	return translate_by(skb, p, n, verdict);
}

/* A pod that speaks to an outside address of a service sees it as the cluster does. */
static __always_inline enum service_scope view_of(const struct packet *p, __u16 scope)
{
	return scope == NAT_EXT && !in_pod_range(&p->t.saddr) ? SCOPE_OUTSIDE : SCOPE_CLUSTER;
}

/*
 * A segment in the middle of a connection to a service, of which nothing is
 * known. On the node's own address the stack is better placed to answer: the
 * connection may be one of its own.
 */
BORDER int lost_flow(const struct packet *p, __u16 scope)
{
	if (!p)
		return 0;
	return in_service_range(&p->t.daddr) || (!is_node(&p->t.daddr) && find_service(&p->t, view_of(p, scope)));
}

/* The address must be on the stack: see BORDER. */
static __always_inline int on_this_node(const struct addr *a)
{
	return is_node(a) || bpf_map_lookup_elem(&node_addrs, a) || find_endpoint(a);
}

/*
 * The address of this node that a backend elsewhere is to answer. To one behind a tunnel that is an address that has a way
 * back through it: what is between the nodes may know no pods, and take no packets from them.
 */
static __always_inline struct addr answerable(const struct addr *backend)
{
	struct range_key key = { .prefix = 8 * ADDR_LEN, .addr = *backend };
	struct addr *own = bpf_map_lookup_elem(&tunnelled, &key);

	return own ? *own : CFG_ADDR(node);
}

BORDER enum step balance_new(struct __sk_buff *skb, struct packet *p, __u16 scope, enum answer_to origin, int *verdict)
{
	struct slot backend = {};
	int spread = 0;

	if (!p || !verdict)
		return STEP_AS_IS;
	if (!has_ports(p->t.proto)) {
		/* ping of a service address: nobody is there, and it must not leave the node */
		if (in_service_range(&p->t.daddr))
			return verdict_is(verdict, drop(DROP_PROTOCOL));
		return STEP_AS_IS;
	}
	/* The node's processes may have services on 127.0.0.1; nobody else may use them. */
	if (addr_loopback(&p->t.daddr))
		return STEP_AS_IS;
	if (!starts_flow(p)) {
		/* State was lost. Say so, and the client opens a new connection. */
		if (lost_flow(p, scope))
			return verdict_is(verdict, refuse(skb, p, origin, REFUSED_NO_FLOW));
		return STEP_AS_IS;
	}
	switch (pick_backend(&p->t, view_of(p, scope), &backend)) {
	case PICK_NONE:
		return STEP_AS_IS;
	case PICK_REFUSE_NO_ENDPOINT:
		return verdict_is(verdict, refuse(skb, p, origin, REFUSED_NO_ENDPOINT));
	case PICK_REFUSE_NO_SERVICE:
		return verdict_is(verdict, refuse(skb, p, origin, REFUSED_NO_SERVICE));
	case PICK_DROP_NO_LOCAL_ENDPOINT:
		return verdict_is(verdict, drop(DROP_NO_LOCAL_ENDPOINT));
	case PICK_DROP_SOURCE_RANGE:
		return verdict_is(verdict, drop(DROP_SOURCE_RANGE));
	case PICK_UNKNOWN_YET:
		return verdict_is(verdict, drop(DROP_SERVICES_NOT_SYNCED));
	}
	p->real = p->t;
	p->real.daddr = backend.addr;
	p->real.dport = backend.port;
	/* A pod that reaches itself would answer itself past this program. */
	if (addr_equal(&p->real.daddr, &p->real.saddr))
		p->real.saddr = CFG_ADDR(hairpin);
	/* A backend elsewhere must answer by way of this node, which knows what to turn back. */
	if (scope == NAT_EXT && !on_this_node(&backend.addr)) {
		p->real.saddr = answerable(&backend.addr);
		spread = 1;
	}
	if (!nat_create(&p->t, &p->real, scope, 1, spread))
		return verdict_is(verdict, drop(DROP_NO_SNAT_PORT));
	return apply(skb, p, &p->real, verdict);
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
