// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * The programs of the dataplane. Each is an entry point and nothing more; what it
 * does stands in the header of its name. Compiled once per address family, see
 * family.h.
 */
#include "from_ext.h"
#include "from_pod.h"
#include "sock.h"
#include "to_ext.h"
#include "to_pod.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

SEC("tc")
int from_pod(struct __sk_buff *skb)
{
	return settle(skb, AT_FROM_POD, handle_from_pod(skb));
}

SEC("tc")
int to_pod(struct __sk_buff *skb)
{
	return settle(skb, AT_TO_POD, handle_to_pod(skb));
}

SEC("tc")
int from_ext(struct __sk_buff *skb)
{
	return settle(skb, AT_FROM_EXT, handle_from_ext(skb));
}

SEC("tc")
int to_ext(struct __sk_buff *skb)
{
	return settle(skb, AT_TO_EXT, handle_to_ext(skb));
}

#if FAMILY == 4
SEC("cgroup/connect4")
int sock_connect(struct bpf_sock_addr *ctx)
{
	return sock_settle(ctx, SOCK_NATIVE, sock_forward(ctx, SOCK_NATIVE, 1));
}

SEC("cgroup/sendmsg4")
int sock_sendmsg(struct bpf_sock_addr *ctx)
{
	return sock_settle(ctx, SOCK_NATIVE, sock_forward(ctx, SOCK_NATIVE, 0));
}

SEC("cgroup/recvmsg4")
int sock_recvmsg(struct bpf_sock_addr *ctx)
{
	return sock_backward(ctx, SOCK_NATIVE);
}

SEC("cgroup/getpeername4")
int sock_peername(struct bpf_sock_addr *ctx)
{
	return sock_backward(ctx, SOCK_NATIVE);
}

SEC("cgroup/connect6")
int mapped_connect(struct bpf_sock_addr *ctx)
{
	return sock_settle(ctx, SOCK_MAPPED, sock_forward(ctx, SOCK_MAPPED, 1));
}

SEC("cgroup/sendmsg6")
int mapped_sendmsg(struct bpf_sock_addr *ctx)
{
	return sock_settle(ctx, SOCK_MAPPED, sock_forward(ctx, SOCK_MAPPED, 0));
}

SEC("cgroup/recvmsg6")
int mapped_recvmsg(struct bpf_sock_addr *ctx)
{
	return sock_backward(ctx, SOCK_MAPPED);
}

SEC("cgroup/getpeername6")
int mapped_peername(struct bpf_sock_addr *ctx)
{
	return sock_backward(ctx, SOCK_MAPPED);
}
#else
SEC("cgroup/connect6")
int sock_connect(struct bpf_sock_addr *ctx)
{
	return sock_settle(ctx, SOCK_NATIVE, sock_forward(ctx, SOCK_NATIVE, 1));
}

SEC("cgroup/sendmsg6")
int sock_sendmsg(struct bpf_sock_addr *ctx)
{
	return sock_settle(ctx, SOCK_NATIVE, sock_forward(ctx, SOCK_NATIVE, 0));
}

SEC("cgroup/recvmsg6")
int sock_recvmsg(struct bpf_sock_addr *ctx)
{
	return sock_backward(ctx, SOCK_NATIVE);
}

SEC("cgroup/getpeername6")
int sock_peername(struct bpf_sock_addr *ctx)
{
	return sock_backward(ctx, SOCK_NATIVE);
}
#endif
