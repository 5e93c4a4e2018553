/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * from_ext.h: tc ingress on the uplink: node ports, load balancer addresses, the answers
 * to what pods sent out under the node's address, and what pods of other nodes send.
 *
 * A backend on this node gets the client's address unchanged. Its answer is
 * turned back at to_ext, where it leaves. One on another node gets the node's address and
 * answers to here.
 */
#pragma once

#include "announce.h"
#include "forward.h"
#include "reset.h"

/* An answer from elsewhere to what a pod asked of a service. */
static __always_inline int answers_pod(const struct nat *n)
{
	return n && n->scope & NAT_POD && !n->to_real;
}

/*
 * A packet on its way to a pod passes no other hook, so what from_pod made of the pod's request
 * is turned back here as well, if need be after what to_ext made of it.
 */
static __always_inline enum step translate_from_ext(struct __sk_buff *skb, struct packet *p, int *verdict)
{
	struct nat *n = bpf_map_lookup_elem(&nats, &p->t);
	enum step s;

	if (answers_pod(n))
		return translate_by(skb, p, n, verdict);
	if (!n || !(n->scope & NAT_EXT))
		return STEP_AS_IS;
	s = translate_by(skb, p, n, verdict);
	if (s != STEP_TRANSLATED)
		return s;
	n = bpf_map_lookup_elem(&nats, &p->t);
	return answers_pod(n) ? translate_by(skb, p, n, verdict) : s;
}

/*
 * Nobody else has the node's addresses. The stack would drop such a packet by itself if it had not been told to
 * take the node's own that come back to it, see forward.h.
 */
static __always_inline int to_stack(const struct packet *p)
{
	return is_node_addr(&p->t.saddr) ? drop(DROP_SPOOFED) : PASS;
}

static __always_inline int flow_from_ext(struct __sk_buff *skb, struct packet *p)
{
	int verdict = TC_ACT_SHOT, why;
	enum step s = translate_from_ext(skb, p, &verdict);
	struct endpoint *to = find_endpoint(&p->t.daddr);

	/* A pod's own address is never a service, whatever the API says. */
	if (s == STEP_AS_IS && !to) {
		s = balance_new(skb, p, NAT_EXT, ANSWER_WIRE, &verdict);
		to = find_endpoint(&p->t.daddr);
	}
	if (s == STEP_VERDICT)
		return verdict;
	if (to || s == STEP_TRANSLATED) {
		why = ct_track(p, s == STEP_TRANSLATED ? FLOW_NAT : 0, ORIGIN_OUTSIDE);
		if (why && deny(skb, p, why, AT_FROM_EXT) == STEP_VERDICT)
			return TC_ACT_SHOT;
	}
	if (to)
		return deliver(skb, to);
	if (s == STEP_AS_IS)
		return to_stack(p);
	return is_node_addr(&p->t.daddr) ? PASS : forward(skb, p);
}

static __always_inline int error_from_ext(struct __sk_buff *skb, struct packet *p)
{
	int verdict = TC_ACT_SHOT, why;
	enum step s = translate_error(skb, p, NAT_EXT, &verdict), again;
	struct endpoint *to;

	if (s == STEP_VERDICT)
		return verdict;
	to = find_endpoint(&p->t.daddr);
	if (!to)
		return PASS;
	/* As for flows: the pod knows the service, not the backend. */
	again = translate_error(skb, p, NAT_POD, &verdict);
	if (again == STEP_VERDICT)
		return verdict;
	why = judge_stray(skb, p, s == STEP_TRANSLATED || again == STEP_TRANSLATED, ORIGIN_OUTSIDE);
	return why ? drop(why) : deliver(skb, to);
}

/*
 * A frame for another machine's hardware address is that machine's, even if a switch floods it to here: the
 * address of a load balancer is known to all nodes, and two of them must not answer for it. The stack drops it. What
 * is broadcast is for the stack as well, which forwards nothing of it; but for questions for an address.
 */
static __always_inline int handle_from_ext(struct __sk_buff *skb)
{
	int verdict = PASS, why;
	struct endpoint *to;
	struct packet p = {};

	if (skb->pkt_type == PACKET_OTHERHOST)
		return PASS;
	/* What cannot be read here is for the stack to judge: the node has other business too. */
	switch (parse(skb, &p)) {
	case PARSE_OTHER:
		return announce(skb, &p, 1);
	case PARSE_BAD:
		return PASS;
	}
	if (p.kind == KIND_NO_PORTS) {
		verdict = announce(skb, &p, 0);
		if (verdict != PASS)
			return verdict;
	}
	if (skb->pkt_type != PACKET_HOST)
		return to_stack(&p);
	switch (p.kind) {
	case KIND_FLOW:
		return flow_from_ext(skb, &p);
	case KIND_ICMP_ERROR:
		return error_from_ext(skb, &p);
	}
	to = find_endpoint(&p.t.daddr);
	if (!to)
		return to_stack(&p);
	why = judge_stray(skb, &p, 0, ORIGIN_OUTSIDE);
	return why ? drop(why) : deliver(skb, to);
}
