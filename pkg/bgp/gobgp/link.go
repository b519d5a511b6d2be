package gobgp

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	packet "github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

const (
	// closePatience is how long a last message may take to get to the router.
	closePatience = time.Second
	// interruptPatience is how long a message that is being written may take when the session is to end.
	interruptPatience = 100 * time.Millisecond
	// sendPatience is how long a router may take nothing at all (RFC 9687).
	sendPatience = 8 * time.Minute
	// silencePatience is how long a router may say nothing until that is remarkable. GoBGP waits for four minutes.
	silencePatience = 5 * time.Second
	// overduePatience is how long GoBGP may take to end a session whose hold time is over.
	overduePatience = 3 * time.Second
)

// link passes messages on between a router and GoBGP, as long as both are there.
type link struct {
	session        *session
	router, engine *net.TCPConn
	holdTime       time.Duration // ours; 0 for none
	routerID       netip.Addr
	closing        atomic.Bool

	mu     sync.Mutex // held while the router is written to
	broken bool       // a message was not written whole

	opened open // what the router said; only fromRouter uses it

	// overdue ends the session when the router has said nothing for patience, which is longer than GoBGP waits: the end that GoBGP makes
	// may be stuck behind a message that the router does not take. Only run and fromRouter use it; nil without a hold time.
	overdue  *time.Timer
	patience time.Duration
}

// run returns when the connection to the router has ended. first is GoBGP's first message.
func (l *link) run(first []byte) {
	var both sync.WaitGroup
	both.Go(func() {
		err := l.toRouter(first)
		if !l.closing.Load() {
			l.session.ended(l, fmt.Sprintf("this node ended the session: %v", bare(err)))
		}
		l.finish()
	})
	silent := time.AfterFunc(silencePatience, func() { l.session.silent(l) })
	err := l.fromRouter()
	silent.Stop()
	if !l.closing.Load() {
		l.session.ended(l, l.why(err))
	}
	l.engine.Close()
	both.Wait()
	if l.overdue != nil {
		l.overdue.Stop()
	}
	l.router.Close()
}

// why says what the end of a connection may mean.
func (l *link) why(err error) string {
	cause := "closed the connection"
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		cause = "is not connected any more: " + bare(err).Error()
	}
	if l.opened.asn == 0 {
		return fmt.Sprintf("the router %s before it said who it is: does it have this node, %v, as its neighbour?", cause, localAddress(l.router))
	}
	return "the router " + cause
}

// toRouter passes on what GoBGP says.
func (l *link) toRouter(m []byte) error {
	from := bufio.NewReaderSize(l.engine, 1<<16)
	for {
		if m[typeOffset] == packet.BGP_MSG_OPEN {
			amendOpen(m, l.routerID, l.holdTime == 0)
		}
		if err := l.send(m); err != nil {
			return err
		}
		if m[typeOffset] == packet.BGP_MSG_NOTIFICATION {
			l.session.ended(l, "this node sent "+describe(m)+l.hint(m))
		}
		var err error
		if m, err = l.next(from); err != nil {
			return err
		}
	}
}

// hint says more about a NOTIFICATION of ours.
func (l *link) hint(m []byte) string {
	if len(m) >= headerLength+2 && m[headerLength] == packet.BGP_ERROR_OPEN_MESSAGE_ERROR && m[headerLength+1] == packet.BGP_ERROR_SUB_BAD_PEER_AS {
		return fmt.Sprintf(": the router's ASN is %d", l.session.routerASN())
	}
	return ""
}

// send writes a message to the router.
func (l *link) send(m []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	_ = l.router.SetWriteDeadline(time.Now().Add(sendPatience)) // before the question: close sets a shorter one
	if l.closing.Load() {
		return net.ErrClosed
	}
	if _, err := l.router.Write(m); err != nil {
		l.broken = true
		return err
	}
	l.session.sent(m[typeOffset])
	return nil
}

// fromRouter passes on what the router says, except for its routes.
func (l *link) fromRouter() error {
	from := bufio.NewReaderSize(l.router, 1<<16)
	for {
		m, err := readMessage(from)
		if l.closing.Load() {
			_, _ = io.Copy(io.Discard, from) // or the connection would be reset, and our last message lost with it
			return nil
		}
		if errors.Is(err, errLength) {
			l.session.received(0)
			_, _ = l.engine.Write(m) // GoBGP knows how to answer
			_, err = io.Copy(io.Discard, from)
			return err
		}
		if err != nil {
			return err
		}
		kind := m[typeOffset]
		l.session.received(kind)
		if l.overdue != nil {
			l.overdue.Reset(l.patience)
		}
		switch kind {
		case packet.BGP_MSG_OPEN:
			l.opened = readOpen(m)
			if l.holdTime == 0 {
				clearHoldTime(m)
			}
			l.expect(min(l.holdTime, holdTime(m)))
			if refusal, why := l.session.opened(l, l.opened); refusal != nil {
				l.close(refusal, why)
				continue
			}
		case packet.BGP_MSG_UPDATE:
			// It shows that the router lives, which may not say so otherwise while it has routes to tell (RFC 4271, section 4.4).
			m = newMessage(packet.BGP_MSG_KEEPALIVE)
		case packet.BGP_MSG_NOTIFICATION:
			l.session.ended(l, "the router sent "+describe(m))
		}
		if _, err := l.engine.Write(m); err != nil {
			_, err = io.Copy(io.Discard, from) // GoBGP has ended the session, and may have told the router why
			return err
		}
		if kind == packet.BGP_MSG_KEEPALIVE {
			l.session.alive(l)
		}
	}
}

// expect sees to it that the session ends if the router is silent for longer than the hold time that was agreed on.
func (l *link) expect(hold time.Duration) {
	if hold == 0 || l.overdue != nil {
		return
	}
	l.patience = hold + overduePatience
	l.overdue = time.AfterFunc(l.patience, func() {
		l.close(notification(packet.BGP_ERROR_HOLD_TIMER_EXPIRED, 0),
			fmt.Sprintf("the router has said nothing for %v, the hold time, and does not take what this node says", hold))
	})
}

// close ends the connection: with a NOTIFICATION, or without a word if that is nil. Of a connection that is broken already, deadlines and
// the end of writing fail, and nothing is to be done about it.
func (l *link) close(notification []byte, why string) {
	if l.closing.Swap(true) {
		return
	}
	l.session.ended(l, why)
	_ = l.router.SetWriteDeadline(time.Now().Add(interruptPatience))
	l.mu.Lock()
	defer l.mu.Unlock()
	if notification == nil || l.broken {
		l.router.Close()
	} else {
		_ = l.router.SetDeadline(time.Now().Add(closePatience))
		if _, err := l.router.Write(notification); err == nil {
			l.session.sent(notification[typeOffset])
		}
		_ = l.router.CloseWrite()
	}
	l.engine.Close()
}

// finish ends the connection after what was written, unless close does.
func (l *link) finish() {
	if l.closing.Swap(true) {
		return
	}
	_ = l.router.SetDeadline(time.Now().Add(closePatience))
	_ = l.router.CloseWrite()
}
