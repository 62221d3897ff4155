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
	// batchSize is the number of packets per system call. Beyond a few dozen, the cost of the call
	// itself no longer matters.
	batchSize = 64
	// requestSize is the size of a packet buffer in octets. It is more than the size that the
	// server announces (ednsUDPSize), and as much as fits one Ethernet frame. The kernel truncates
	// a longer packet, which then doesn't parse and gets FORMERR. requestSize is not a power of
	// two, because packets a power of two apart would evict each other from the CPU's caches.
	requestSize = 1472
	controlSize = 128 // one pktinfo message of IPv4 and one of IPv6 take 72 octets
)

// mmsghdr is the struct mmsghdr of recvmmsg(2), which x/sys doesn't have.
type mmsghdr struct {
	unix.Msghdr
	len uint32
}

// batch reads many packets of a socket with one system call, and sends their responses with
// another. It doesn't allocate. It makes the system calls itself, because ReadBatch of x/net
// allocates a net.Addr for each sender. One goroutine at a time may use a batch.
type batch struct {
	raw syscall.RawConn

	// For each packet: the request, and the space for its response. The response goes to the
	// sender's address (in names) with the request's control message.
	in   [batchSize]mmsghdr
	vecs [batchSize]unix.Iovec
	// The fields before controls hold pointers, so controls is aligned as a cmsghdr must be.
	controls [batchSize][controlSize]byte
	// The longest type of address that occurs here. An IPv4 address fits into it.
	names    [batchSize]unix.RawSockaddrInet6
	requests [batchSize][requestSize]byte
	spaces   [batchSize][ednsUDPSize]byte
	received int

	// The responses to send, without gaps.
	out           [batchSize]mmsghdr
	outVecs       [batchSize]unix.Iovec
	pending, sent int

	// The functions that RawConn calls, made once, and the result of their last system call.
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
	// The calls are raw system calls. They don't block. An ordinary system call would tell the
	// runtime, which would wake its monitor thread for each batch that arrives at an idle server.
	b.recv = func(fd uintptr) bool {
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&b.in)), batchSize,
			unix.MSG_DONTWAIT, 0, 0)
		b.n, b.errno = int(n), errno
		return errno != unix.EAGAIN
	}
	b.transmit = func(fd uintptr) bool {
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&b.out[b.sent])),
			uintptr(b.pending-b.sent), unix.MSG_DONTWAIT, 0, 0)
		b.n, b.errno = int(n), errno
		return errno != unix.EAGAIN
	}
	return b, nil
}

// receive waits for packets and returns how many it received.
func (b *batch) receive() (int, error) {
	// The kernel has overwritten the lengths, so set them again.
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

// request returns packet i and its source address. The packet is valid until the next receive. The
// address has no zone, even if it is link-local, because nothing here uses the zone.
func (b *batch) request(i int) ([]byte, netip.AddrPort) {
	name := &b.names[i]
	port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&name.Port))[:])
	addr := netip.AddrFrom16(name.Addr)
	if name.Family == unix.AF_INET {
		addr = netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(name)).Addr)
	}
	return b.requests[i][:b.in[i].len], netip.AddrPortFrom(addr, port)
}

// space returns the buffer for the response to packet i.
func (b *batch) space(i int) []byte { return b.spaces[i][:] }

// respond queues resp as the response to packet i for the next send. The caller must not change
// resp before that.
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

// send sends the queued responses. An error concerns one response, and usually the client's
// network. send skips that response, and the client asks again.
func (b *batch) send() {
	for b.sent = 0; b.sent < b.pending; {
		if b.raw.Write(b.transmit) != nil {
			break // the socket is closed
		}
		if b.errno == 0 {
			b.sent += b.n
		} else if b.errno != unix.EINTR {
			b.sent++
		}
	}
	b.pending, b.sent = 0, 0
}

// replyFrom edits the control messages of a request in place, so that the response is sent from the
// address that the request was sent to. The kernel accepts the messages in the form in which it
// delivers them (ip(7), ipv6(7)). replyFrom clears the interface unless the address is link-local,
// because the route back may use another interface.
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
			info := (*unix.Inet6Pktinfo)(unsafe.Pointer(&data[0]))
			if !netip.AddrFrom16(info.Addr).IsLinkLocalUnicast() {
				info.Ifindex = 0
			}
		}
		oob = oob[min(len(oob), unix.CmsgSpace(int(h.Len)-unix.CmsgLen(0))):]
	}
}
