package geodns

import (
	"encoding/binary"
	"net"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// batchSize is how many packets one system call takes at most. Beyond some dozens the call
	// itself no longer counts.
	batchSize = 64
	// requestSize is what a packet may have: more than we say that we take (ednsUDPSize), as much
	// as goes over Ethernet in one piece. A longer one is cut, does not parse, and is answered with
	// FORMERR. It is no power of two: packets a power of two apart would push each other out of the
	// processor's caches.
	requestSize = 1472
	controlSize = 128 // two pktinfo messages, an IPv4 and an IPv6 one, take 72
)

// mmsghdr is struct mmsghdr of recvmmsg(2), which x/sys lacks.
type mmsghdr struct {
	unix.Msghdr
	len uint32
}

// batch reads packets of a socket and sends the responses, many with one system call and without
// allocating. It calls the kernel itself: x/net's ReadBatch makes a net.Addr of each packet's
// sender, for WriteBatch to read again. It belongs to one goroutine.
type batch struct {
	raw syscall.RawConn

	// Of each packet: what was received, and the space for its response, which is sent to the same
	// name with the same control message.
	in       [batchSize]mmsghdr
	vecs     [batchSize]unix.Iovec
	controls [batchSize][controlSize]byte     // after what holds pointers, and so aligned as a cmsghdr has to be
	names    [batchSize]unix.RawSockaddrInet6 // the longest that there is here; an IPv4 one has room in it
	requests [batchSize][requestSize]byte
	spaces   [batchSize][ednsUDPSize]byte
	received int

	// Of each response, without gaps.
	out           [batchSize]mmsghdr
	outVecs       [batchSize]unix.Iovec
	pending, sent int

	// What RawConn calls, made once, and what the system calls in it gave.
	recv, transmit func(fd uintptr) (done bool)
	n              int
	errno          syscall.Errno
}

func newBatch(conn *net.UDPConn) (*batch, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	b := &batch{raw: raw, received: batchSize}
	for i := range b.in {
		b.vecs[i].Base = &b.requests[i][0]
		b.vecs[i].SetLen(requestSize)
		h := &b.in[i]
		h.Name = (*byte)(unsafe.Pointer(&b.names[i]))
		h.Iov = &b.vecs[i]
		h.SetIovlen(1)
		h.Control = &b.controls[i][0]
		b.out[i].Iov = &b.outVecs[i]
		b.out[i].SetIovlen(1)
	}
	// Raw system calls: neither waits, and the runtime, told of a call, would wake its watchdog
	// thread for each batch that comes when nothing else is to do.
	b.recv = func(fd uintptr) bool {
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&b.in)), batchSize, unix.MSG_DONTWAIT, 0, 0)
		b.n, b.errno = int(n), errno
		return errno != unix.EAGAIN
	}
	b.transmit = func(fd uintptr) bool {
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&b.out[b.sent])), uintptr(b.pending-b.sent), unix.MSG_DONTWAIT, 0, 0)
		b.n, b.errno = int(n), errno
		return errno != unix.EAGAIN
	}
	return b, nil
}

// receive waits for packets and tells how many came.
func (b *batch) receive() (int, error) {
	// The kernel writes the lengths of what it has written.
	for i := range b.received {
		b.in[i].Namelen = unix.SizeofSockaddrInet6
		b.in[i].SetControllen(controlSize)
	}
	b.received = 0
	if err := b.raw.Read(b.recv); err != nil {
		return 0, err
	}
	if b.errno != 0 {
		return 0, b.errno
	}
	b.received = b.n
	return b.n, nil
}

// request gives a packet, good until the next receive, and where it came from: without the zone of
// a link-local address, which nothing here asks for.
func (b *batch) request(i int) ([]byte, netip.AddrPort) {
	name := &b.names[i]
	port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&name.Port))[:])
	addr := netip.AddrFrom16(name.Addr)
	if name.Family == unix.AF_INET {
		addr = netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(name)).Addr)
	}
	return b.requests[i][:b.in[i].len], netip.AddrPortFrom(addr, port)
}

// space is the room for a packet's response.
func (b *batch) space(i int) []byte { return b.spaces[i][:] }

// respond has a packet answered with the next send. resp is left as it is until then.
func (b *batch) respond(i int, resp []byte) {
	in, out := &b.in[i], &b.out[b.pending]
	b.outVecs[b.pending].Base = &resp[0]
	b.outVecs[b.pending].SetLen(len(resp))
	out.Name, out.Namelen = in.Name, in.Namelen
	out.Control, out.Controllen = nil, 0
	if in.Controllen > 0 {
		replyFrom(b.controls[i][:in.Controllen])
		out.Control, out.Controllen = in.Control, in.Controllen
	}
	b.pending++
}

// send sends the responses. An error is about one of them, and the client's network: it asks again.
func (b *batch) send() {
	for b.sent = 0; b.sent < b.pending; {
		if b.raw.Write(b.transmit) != nil {
			break // closed
		}
		if b.errno == 0 {
			b.sent += b.n
		} else if b.errno != unix.EINTR {
			b.sent++
		}
	}
	b.pending, b.sent = 0, 0
}

// replyFrom makes of the control messages that a packet came with those that send the response from
// where the packet went to. The kernel takes them in the form that it gives them in (ip(7),
// ipv6(7)); but the interface is named only where the address needs it: routing may answer through
// another.
func replyFrom(oob []byte) {
	for len(oob) >= unix.SizeofCmsghdr {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&oob[0]))
		if h.Len < unix.SizeofCmsghdr || uint64(h.Len) > uint64(len(oob)) {
			return
		}
		data := oob[unix.CmsgLen(0):h.Len]
		switch {
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			(*unix.Inet4Pktinfo)(unsafe.Pointer(&data[0])).Ifindex = 0
		case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			if info := (*unix.Inet6Pktinfo)(unsafe.Pointer(&data[0])); !netip.AddrFrom16(info.Addr).IsLinkLocalUnicast() {
				info.Ifindex = 0
			}
		}
		oob = oob[min(len(oob), unix.CmsgSpace(int(h.Len)-unix.CmsgLen(0))):]
	}
}
