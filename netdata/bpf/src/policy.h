/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * policy.h: NetworkPolicy, as two tables and one question.
 *
 * User space gives every pod of this node a subject number, if a policy selects it,
 * and every address that a policy speaks of a peer number: addresses that the same
 * selectors and blocks match share one. What is allowed is a row of (subject, peer,
 * protocol, port). An address without a number is allowed nothing that is not allowed to
 * everybody.
 *
 * The question is asked when a flow begins, for both of its ends, and again on its
 * next packet after the revision moved on; see conntrack.h.
 */
#pragma once

#include "config.h"
#include "drop.h"
#include "tables.h"

/*
 * An endpoint's identity: in which directions it is isolated, and its subject number.
 * 0 is a pod that no policy selects.
 */
#define POLICY_INGRESS (1U << 31)
#define POLICY_EGRESS (1U << 30)
#define POLICY_SUBJECT 0x00ffffffU

struct peer_key {
	__u32 bits;
	struct addr addr;
};
SIZE_ASSERT(struct peer_key, 8, 20);

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 131072);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct peer_key);
	__type(value, __u32);
} policy_peers SEC(".maps");

/*
 * A row allows. Key order: subject with its direction, peer (0 is anybody), protocol,
 * port; so that a shorter prefix is every port of a protocol, or every protocol, and a
 * range of ports is a few prefixes.
 */
struct rule_key {
	__u32 bits;
	__u32 subject;
	__u32 peer;
	__u8 proto;
	__u8 pad; /* counts as bits that are 0 */
	__be16 port;
};
_Static_assert(sizeof(struct rule_key) == 16, "shared with Go");

#define RULE_BITS (8 * (sizeof(struct rule_key) - sizeof(__u32)))

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 524288);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct rule_key);
	__type(value, __u32);
} policy_rules SEC(".maps");

/* Who brought the packet. It decides what its source address is worth. */
enum origin {
	ORIGIN_NODE,    /* the node itself: policy has no say */
	ORIGIN_POD,     /* a pod of this node, its address checked */
	ORIGIN_OUTSIDE, /* another machine, which may claim to be anybody */
};

/*
 * Verdicts given at another revision are out of date. It must be read before the tables
 * are: what is judged while they change is then stamped with the old one and judged again.
 */
static __always_inline __u32 policy_revision(void)
{
	struct node_state *ns = node_state();

	return ns ? ns->policy_revision : 0;
}

/* The node is never kept from its pods, nor they from it: probes, and names. */
static __always_inline int policy_is_node(const struct addr *a)
{
#if FAMILY == 6
	/* Link-local addresses do not lead beyond the node: nobody routes them. */
	if ((a->word[0] & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000) ||
	    (a->word[0] & bpf_htonl(0xffff0000)) == bpf_htonl(0xff020000))
		return 1;
#endif
	return is_node(a) || is_dns(a);
}

static __always_inline int policy_trusted(const struct tuple *t, enum origin origin)
{
	struct addr hairpin = CFG_ADDR(hairpin);

	if (policy_is_node(&t->daddr) || addr_equal(&t->saddr, &t->daddr))
		return 1;
	if (origin == ORIGIN_OUTSIDE)
		return 0;
	/* A pod that reaches itself through a Service comes from the hairpin address. */
	return policy_is_node(&t->saddr) || addr_equal(&t->saddr, &hairpin);
}

/* There is one key for whoever is looked up, end after end: the stack is small. */
static __always_inline int policy_allows(__u32 subject, struct peer_key *who, const struct addr *peer,
					 const struct tuple *t)
{
	struct rule_key what = { .bits = RULE_BITS, .subject = subject, .proto = t->proto, .port = t->dport };
	__u32 *number;

	if (bpf_map_lookup_elem(&policy_rules, &what))
		return 1;
	who->bits = 8 * ADDR_LEN;
	who->addr = *peer;
	number = bpf_map_lookup_elem(&policy_peers, who);
	if (!number)
		return 0;
	what.peer = *number;
	return bpf_map_lookup_elem(&policy_rules, &what) != 0;
}

static __always_inline int policy_denies(const struct addr *subject, __u32 direction, const struct addr *peer,
					 const struct tuple *t, struct peer_key *who)
{
	struct endpoint *pod = find_endpoint(subject);

	if (!pod || !(pod->identity & direction))
		return 0;
	return !policy_allows((pod->identity & POLICY_SUBJECT) | direction, who, peer, t);
}

/*
 * policy_judge asks both ends whether the flow may begin; t runs in the direction
 * of the one who begins it, between the real ends. A packet without ports, a fragment
 * among them, is allowed where all ports of its protocol are.
 */
static __noinline int policy_judge(const struct tuple *t, enum origin origin)
{
	struct peer_key who;

	if (policy_trusted(t, origin))
		return DROP_NONE;
	if (policy_denies(&t->saddr, POLICY_EGRESS, &t->daddr, t, &who))
		return DROP_POLICY_EGRESS;
	if (policy_denies(&t->daddr, POLICY_INGRESS, &t->saddr, t, &who))
		return DROP_POLICY_INGRESS;
	return DROP_NONE;
}
