/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * splice.h: the short way between two pods of this node. What one socket sends is put
 * into the other's queue, past both TCP stacks; connecting, closing and resetting stay
 * packets. Those the packet programs know, and what they have admitted is all that goes this way.
 *
 * A socket decides once for its own direction, with its first message. From the short way it may
 * change to packets, where conntrack and policy then judge it and end it if need be; never back,
 * for what stands in a socket's queue is read before what came as packets.
 */
#pragma once

#include "conntrack.h"

#define SOCKET_ESTABLISHED 1
#define SOCKET_CLOSE_WAIT 8

/* What is read of the kernel's own struct; the loader finds out where it stands. */
struct tcp_sock {
	__u32 snd_nxt;
	__u32 write_seq;
	__u32 data_segs_out;
} __attribute__((preserve_access_index));

/* The established sockets of pods, by their flow as conntrack knows it, seen from the socket. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, 16384);
	__type(key, struct tuple);
	__type(value, __u64);
} spliced SEC(".maps");

enum splice_way {
	WAY_UNDECIDED,
	WAY_SPLICE,
	WAY_PACKETS, /* for the rest of the connection */
};

struct splice_socket {
	struct tuple own;  /* as the socket knows its flow */
	struct tuple real; /* as conntrack does */
	__u32 way;
	/* When and under which policy conntrack was asked last; it is asked again with the next of either. */
	__u32 tick;
	__u32 revision;
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct splice_socket);
} splice_sockets SEC(".maps");

static __always_inline int splice_tuple(struct bpf_sock_ops *ops, struct tuple *t)
{
#if FAMILY == 4
	/* An IPv6 socket may speak IPv4. */
	if (ops->family == 10 && (ops->remote_ip6[0] || ops->remote_ip6[1] || ops->remote_ip6[2] != bpf_htonl(0xffff)))
		return 0;
	t->saddr.word[0] = ops->local_ip4;
	t->daddr.word[0] = ops->remote_ip4;
#else
	if (ops->family != 10 || (!ops->remote_ip6[0] && !ops->remote_ip6[1] && ops->remote_ip6[2] == bpf_htonl(0xffff)))
		return 0;
	t->saddr.word[0] = ops->local_ip6[0];
	t->saddr.word[1] = ops->local_ip6[1];
	t->saddr.word[2] = ops->local_ip6[2];
	t->saddr.word[3] = ops->local_ip6[3];
	t->daddr.word[0] = ops->remote_ip6[0];
	t->daddr.word[1] = ops->remote_ip6[1];
	t->daddr.word[2] = ops->remote_ip6[2];
	t->daddr.word[3] = ops->remote_ip6[3];
#endif
	t->sport = bpf_htons(ops->local_port);
	t->dport = bpf_htons(bpf_ntohl(ops->remote_port));
	t->proto = IPPROTO_TCP;
	return 1;
}

/* splice_real finds out whom a client of a Service really speaks to. */
static __always_inline void splice_real(struct splice_socket *s)
{
	struct nat *n = bpf_map_lookup_elem(&nats, &s->own);

	s->real = s->own;
	if (!n || !(n->scope & NAT_POD) || !n->to_real)
		return;
	s->real.saddr = n->saddr;
	s->real.daddr = n->daddr;
	s->real.sport = n->sport;
	s->real.dport = n->dport;
}

/*
 * splice_between: both ends are pods of this node, and the socket is in the namespace of the pod that
 * has its address: a privileged pod can give itself anybody's.
 */
static __always_inline int splice_between(struct bpf_sock_ops *ops, const struct tuple *t)
{
	struct endpoint *own = find_endpoint(&t->saddr);

	if (!own || !own->netns || own->netns != bpf_get_netns_cookie(ops))
		return 0;
	return !addr_equal(&t->saddr, &t->daddr) && find_endpoint(&t->daddr);
}

/* splice_flow returns the flow, as long as it is open and policy has a say in it. */
static __always_inline struct flow *splice_flow(const struct tuple *t, int *swapped)
{
	struct tuple key;
	struct flow *f;

	*swapped = ct_key(t, &key);
	f = bpf_map_lookup_elem(&ct, &key);
	return f && !ct_over(f->flags) && !(f->flags & FLOW_NODE) ? f : 0;
}

/* splice_join notes a socket whose connection has just been established. */
static __always_inline void splice_join(struct bpf_sock_ops *ops)
{
	struct splice_socket s = {};
	struct bpf_sock *sk = ops->sk;
	int swapped;

	if (!sk || !splice_tuple(ops, &s.own))
		return;
	splice_real(&s);
	if (!splice_between(ops, &s.real) || !splice_flow(&s.real, &swapped))
		return;
	if (bpf_sk_storage_get(&splice_sockets, sk, &s, BPF_SK_STORAGE_GET_F_CREATE))
		bpf_sock_hash_update(ops, &spliced, &s.real, BPF_NOEXIST);
}

/* splice_fresh: nothing has been sent as packets that could still be under way. */
static __always_inline int splice_fresh(struct bpf_sock *sk)
{
	struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);

	return tp && !tp->data_segs_out && tp->write_seq == tp->snd_nxt;
}

/* Rows that no packet looks at would be the first to be evicted. */
static __always_inline void splice_keep(const struct splice_socket *s)
{
	struct tuple key = s->own;

	bpf_map_lookup_elem(&nats, &key);
	tuple_reverse(&s->real, &key);
	bpf_map_lookup_elem(&nats, &key);
}

/*
 * splice_admitted: conntrack knows the flow, and the policy in force allows it. What conntrack says
 * between two ticks is that packets are under way that end the connection, and those the sockets see themselves.
 */
static __always_inline int splice_admitted(struct splice_socket *s)
{
	__u32 revision = policy_revision(), tick = now();
	struct tuple t;
	struct flow *f;
	int swapped;

	if (s->way == WAY_SPLICE && s->tick == tick && s->revision == revision)
		return 1;
	t = s->real;
	f = splice_flow(&t, &swapped);
	if (!f)
		return 0;
	if (f->revision != revision) {
		if (!ct_from_originator(f, swapped))
			tuple_reverse(&s->real, &t);
		if (policy_judge(&t, ORIGIN_POD))
			return 0; /* as a packet, it is what resets the connection */
		f->revision = revision;
	}
	if (f->seen != tick) {
		f->seen = tick;
		splice_keep(s);
	}
	s->tick = tick;
	s->revision = revision;
	return 1;
}

static __always_inline int splice_redirect(struct sk_msg_md *msg, const struct splice_socket *s)
{
	struct tuple peer;

	tuple_reverse(&s->real, &peer);
	return bpf_msg_redirect_hash(msg, &spliced, &peer, BPF_F_INGRESS) == SK_PASS;
}

/* A socket that has closed its direction must not send any more; TCP says so. */
static __always_inline int splice_open(const struct bpf_sock *sk)
{
	return sk->state == SOCKET_ESTABLISHED || sk->state == SOCKET_CLOSE_WAIT;
}

/* splice_message sends a message the short way, if it may. */
static __always_inline void splice_message(struct sk_msg_md *msg)
{
	struct bpf_sock *sk = msg->sk;
	struct splice_socket *s;

	if (!sk)
		return;
	s = bpf_sk_storage_get(&splice_sockets, sk, 0, 0);
	if (!s || s->way == WAY_PACKETS)
		return;
	if (splice_open(sk) && (s->way == WAY_SPLICE || splice_fresh(sk)) && splice_admitted(s) && splice_redirect(msg, s))
		s->way = WAY_SPLICE;
	else
		s->way = WAY_PACKETS;
}
