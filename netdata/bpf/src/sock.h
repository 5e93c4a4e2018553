/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * sock.h: Services for the node's own processes, at connect and sendmsg instead of per
 * packet. Pods have the packet path; their sockets are told apart by namespace.
 *
 * For IPv4 the same code runs at the IPv6 hooks as well, for sockets that speak to
 * IPv4-mapped addresses.
 */
#pragma once

#include "events.h"
#include "service.h"

#define ECONNREFUSED 111
#define EHOSTUNREACH 113
#define SOCK_ALLOW 1
#define SOCK_DENY 0

enum sock_family { SOCK_NATIVE, SOCK_MAPPED };

static __always_inline int sock_addr_get(struct bpf_sock_addr *ctx, enum sock_family f, struct addr *a)
{
#if FAMILY == 4
	if (f == SOCK_NATIVE) {
		a->word[0] = ctx->user_ip4;
		return 1;
	}
	if (ctx->user_ip6[0] || ctx->user_ip6[1] || ctx->user_ip6[2] != bpf_htonl(0xffff))
		return 0;
	a->word[0] = ctx->user_ip6[3];
#else
	a->word[0] = ctx->user_ip6[0];
	a->word[1] = ctx->user_ip6[1];
	a->word[2] = ctx->user_ip6[2];
	a->word[3] = ctx->user_ip6[3];
#endif
	return 1;
}

static __always_inline void sock_addr_set(struct bpf_sock_addr *ctx, enum sock_family f, const struct addr *a, __be16 port)
{
#if FAMILY == 4
	if (f == SOCK_NATIVE)
		ctx->user_ip4 = a->word[0];
	else
		ctx->user_ip6[3] = a->word[0];
#else
	ctx->user_ip6[0] = a->word[0];
	ctx->user_ip6[1] = a->word[1];
	ctx->user_ip6[2] = a->word[2];
	ctx->user_ip6[3] = a->word[3];
#endif
	ctx->user_port = port;
}

static __always_inline void remember_peer(struct bpf_sock_addr *ctx, const struct addr *service, __be16 port,
					  const struct slot *backend, int connected)
{
	if (connected && ctx->sk) {
		struct peer row = {
			.backend = backend->addr,
			.service = *service,
			.backend_port = backend->port,
			.service_port = port,
		};
		struct peer *p = bpf_sk_storage_get(&sock_peers, ctx->sk, &row, BPF_SK_STORAGE_GET_F_CREATE);

		/* A socket may connect again: the value given above only fills a new row. */
		if (p)
			*p = row;
		return;
	}
	struct datagram_key key = {
		.cookie = bpf_get_socket_cookie(ctx),
		.backend = backend->addr,
		.port = backend->port,
	};
	struct datagram_peer row = { .service = *service, .port = port };

	bpf_map_update_elem(&datagram_peers, &key, &row, BPF_ANY);
}

/* Like drop(), the result carries the reason to the program's entry. */
static __always_inline int sock_refuse(enum drop_reason why)
{
	return SOCK_DENY | why << REASON_SHIFT;
}

static __always_inline void event_connect(struct bpf_sock_addr *ctx, const struct addr *dst, __be16 port,
					  const struct slot *backend)
{
	struct tuple t = {
		.saddr = CFG_ADDR(node),
		.daddr = backend->addr,
		.dport = backend->port,
		.proto = ctx->protocol,
	};
	struct slot asked = { .addr = *dst, .port = port };

	event_socket(&t, &asked, EVENT_CONNECT, DROP_NONE);
}

static __always_inline int sock_forward(struct bpf_sock_addr *ctx, enum sock_family f, int connected)
{
	struct tuple t = { .saddr = CFG_ADDR(node), .dport = (__be16)ctx->user_port };
	struct slot backend = {};

	if (bpf_get_netns_cookie(ctx) != cfg.netns_cookie || !sock_addr_get(ctx, f, &t.daddr))
		return SOCK_ALLOW;
	if (ctx->protocol != IPPROTO_TCP && ctx->protocol != IPPROTO_UDP)
		return SOCK_ALLOW;
	t.proto = ctx->protocol;
	switch (pick_backend(&t, SCOPE_CLUSTER, &backend)) {
	case PICK_REFUSE_NO_ENDPOINT:
		return sock_refuse(REFUSED_NO_ENDPOINT);
	case PICK_REFUSE_NO_SERVICE:
		return sock_refuse(REFUSED_NO_SERVICE);
	/* A process that may not get there learns it at once; only packets are dropped. */
	case PICK_DROP_NO_LOCAL_ENDPOINT:
		return sock_refuse(DROP_NO_LOCAL_ENDPOINT);
	case PICK_DROP_SOURCE_RANGE:
		return sock_refuse(DROP_SOURCE_RANGE);
	case PICK_BACKEND:
		remember_peer(ctx, &t.daddr, t.dport, &backend, connected);
		if (connected)
			event_connect(ctx, &t.daddr, t.dport, &backend);
		sock_addr_set(ctx, f, &backend.addr, backend.port);
		return SOCK_ALLOW;
	default:
		return SOCK_ALLOW;
	}
}

/* sock_settle turns what sock_forward decided into what the kernel is told: see settle(). */
static __always_inline int sock_settle(struct bpf_sock_addr *ctx, enum sock_family f, int verdict)
{
	enum drop_reason why = verdict >> REASON_SHIFT;
	struct tuple t = { .saddr = CFG_ADDR(node), .dport = (__be16)ctx->user_port, .proto = ctx->protocol };
	struct slot none = {};

	if (verdict < 1 << REASON_SHIFT)
		return verdict;
	count_at(why, AT_SOCKET);
	/* What was refused is still addressed as the process addressed it. */
	if (sock_addr_get(ctx, f, &t.daddr))
		event_socket(&t, &none, EVENT_REFUSE, why);
	bpf_set_retval(why == DROP_NO_LOCAL_ENDPOINT || why == DROP_SOURCE_RANGE ? -EHOSTUNREACH : -ECONNREFUSED);
	return SOCK_DENY;
}

/* sock_backward gives the process the address it asked for, not the one it got. */
static __always_inline int sock_backward(struct bpf_sock_addr *ctx, enum sock_family f)
{
	struct addr from = {};
	__be16 port = (__be16)ctx->user_port;

	if (bpf_get_netns_cookie(ctx) != cfg.netns_cookie || !sock_addr_get(ctx, f, &from))
		return SOCK_ALLOW;
	if (ctx->sk) {
		struct peer *p = bpf_sk_storage_get(&sock_peers, ctx->sk, 0, 0);

		if (p && addr_equal(&p->backend, &from) && p->backend_port == port) {
			struct peer row = *p;

			sock_addr_set(ctx, f, &row.service, row.service_port);
			return SOCK_ALLOW;
		}
	}
	struct datagram_key key = { .cookie = bpf_get_socket_cookie(ctx), .backend = from, .port = port };
	struct datagram_peer *d = bpf_map_lookup_elem(&datagram_peers, &key);

	if (d) {
		struct datagram_peer row = *d;

		sock_addr_set(ctx, f, &row.service, row.port);
	}
	return SOCK_ALLOW;
}
