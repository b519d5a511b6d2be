package bfd

import (
	"math/rand/v2"
	"time"
)

// slowInterval is the least Desired Min TX Interval of a session that is not up (RFC 5880, section 6.8.3).
const slowInterval = time.Second

// farewells is how many packets tell the peer that a session is taken down on purpose, farewellInterval is the time between them. They
// have to get through before the peer's detection time is over, or it takes us for dead.
const (
	farewells        = 3
	farewellInterval = 100 * time.Millisecond
)

// machine is the state machine of a session (RFC 5880, section 6.8). It does nothing on its own: whoever has it calls recv for each packet
// that comes, expire and next when wake's time has come and after each other call, and sends what next returns.
type machine struct {
	config        Session
	discriminator uint32
	random        func() float64 // in [0, 1)

	state      State
	diagnostic Diagnostic
	since      time.Time
	failed     bool
	remote     remote
	ups, downs uint64

	// desiredTx and requiredRx are what the peer is told. While a Poll Sequence tells it, tx and rx may still be the values before (section
	// 6.8.3): they are those that transmission and detection use.
	desiredTx, requiredRx time.Duration
	tx, rx                time.Duration
	// polling: a Poll Sequence is under way. pause: one has ended, and no packet without the Poll bit was sent since. Without it the peer's
	// answers to two sequences could not be told apart.
	polling, pause bool

	heard   time.Time // when the latest packet came
	sent    time.Time // when the latest periodic packet was sent
	nextTx  time.Time // when the next one is due, if packets are sent periodically at all
	urgent  bool      // a packet is to be sent although it is not time, because its content is news
	answer  bool      // the peer's Poll is to be answered
	goodbye int       // packets to send in AdminDown until the machine may be thrown away
}

// remote is what is known of the peer.
type remote struct {
	discriminator         uint32 // 0: not heard
	state                 State
	diagnostic            Diagnostic
	demand                bool
	multiplier            uint8
	desiredTx, requiredRx time.Duration
}

// unheard is what is assumed of a peer that was not heard (section 6.8.1).
var unheard = remote{state: Down, requiredRx: time.Microsecond}

func newMachine(now time.Time, config Session, discriminator uint32) *machine {
	m := &machine{config: config, discriminator: discriminator, random: rand.Float64, state: Down, since: now, remote: unheard, nextTx: now}
	m.retime(now)
	return m
}

// configure changes timers, multiplier, passivity and TTL; a machine that was leaving comes back.
func (m *machine) configure(now time.Time, config Session) {
	news := config.Multiplier != m.config.Multiplier
	m.config = config
	if m.state == AdminDown {
		m.goodbye = 0
		m.enter(now, Down, NoDiagnostic)
	}
	m.urgent = m.urgent || news
	m.retime(now)
}

// leave takes the session down on purpose (section 6.8.16).
func (m *machine) leave(now time.Time) {
	if m.state == AdminDown {
		return
	}
	m.enter(now, AdminDown, AdministrativelyDown)
	m.failed, m.answer = false, false
	if !m.sent.IsZero() {
		m.goodbye = farewells
	}
}

// gone says that the peer was told often enough of the session's end.
func (m *machine) gone() bool { return m.state == AdminDown && m.goodbye == 0 }

// recv processes a packet that parse found nothing wrong with and that is this session's; comments name the steps of section 6.8.6.
func (m *machine) recv(now time.Time, p *packet) {
	before := m.interval()
	m.remote = remote{
		discriminator: p.mine, state: p.state, diagnostic: p.diagnostic, demand: p.demand,
		multiplier: p.multiplier, desiredTx: p.desiredTx, requiredRx: p.requiredRx,
	}
	m.heard = now
	if p.final && m.polling {
		m.endPoll(now)
	}
	m.rearm(before)
	if m.state == AdminDown {
		return
	}
	switch {
	case p.state == AdminDown:
		if m.state != Down {
			m.enter(now, Down, NeighborSignaledDown)
		}
		m.failed = false
	case m.state == Down && p.state == Down:
		m.enter(now, Init, m.diagnostic)
	case m.state == Down && p.state == Init, m.state == Init && p.state >= Init:
		m.enter(now, Up, NoDiagnostic)
	case m.state == Up && p.state == Down:
		m.enter(now, Down, NeighborSignaledDown)
	}
	m.answer = m.answer || p.poll
}

// expire notices that the peer was not heard for the detection time (section 6.8.4).
func (m *machine) expire(now time.Time) {
	if !m.overdue(now) {
		return
	}
	said := m.remote
	m.remote = unheard
	if m.state == Init || m.state == Up {
		m.enter(now, Down, DetectionTimeExpired)
	} else {
		// A purpose stays known after the peer has fallen silent, as it may then.
		m.remote.state, m.remote.diagnostic = said.state, said.diagnostic
	}
	m.polling, m.pause, m.answer = false, false, false
}

// overdue says that expire has something to notice.
func (m *machine) overdue(now time.Time) bool {
	return m.remote.discriminator != 0 && m.state != AdminDown && !now.Before(m.heard.Add(m.detectionTime()))
}

// next returns a packet that has to be sent now, if there is one; it is to be called until there is none.
func (m *machine) next(now time.Time) (p packet, ok bool) {
	if m.answer {
		m.answer = false
		return m.packet(true), true
	}
	if !m.mayTransmit() {
		m.urgent = false
		return packet{}, false
	}
	if !m.urgent && (!m.periodic() || now.Before(m.nextTx)) {
		return packet{}, false
	}
	p = m.packet(false)
	m.urgent = false
	m.sent = now
	m.nextTx = now.Add(m.jitter(m.interval()))
	if m.goodbye > 0 {
		m.goodbye--
	}
	if m.pause {
		m.pause = false
		m.retime(now)
	}
	return p, true
}

// wake returns when expire or next has to be called; the zero time if only a packet can change anything.
func (m *machine) wake() time.Time {
	var at time.Time
	if m.mayTransmit() && m.periodic() {
		at = m.nextTx
	}
	if m.remote.discriminator != 0 && m.state != AdminDown {
		if expiry := m.heard.Add(m.detectionTime()); at.IsZero() || expiry.Before(at) {
			at = expiry
		}
	}
	return at
}

// mayTransmit and periodic are the rules of section 6.8.7.
func (m *machine) mayTransmit() bool {
	if m.state == AdminDown {
		return m.goodbye > 0
	}
	return !m.config.Passive || m.remote.discriminator != 0
}

func (m *machine) periodic() bool {
	if m.goodbye > 0 {
		return true
	}
	demand := m.remote.demand && m.state == Up && m.remote.state == Up
	return m.remote.requiredRx > 0 && (!demand || m.polling)
}

func (m *machine) packet(final bool) packet {
	return packet{
		diagnostic: m.diagnostic, state: m.state, poll: m.polling && !final, final: final, multiplier: m.config.Multiplier,
		mine: m.discriminator, yours: m.remote.discriminator, desiredTx: m.desiredTx, requiredRx: m.requiredRx,
	}
}

// interval is the time between periodic packets, without jitter.
func (m *machine) interval() time.Duration {
	if m.goodbye > 0 {
		return farewellInterval
	}
	return max(m.tx, m.remote.requiredRx)
}

// jitter takes up to a quarter off an interval, so that sessions do not send in step. With a multiplier of 1 there are no packets to
// spare: one has to come before the detection time, which is a single interval, is over (section 6.8.7).
func (m *machine) jitter(d time.Duration) time.Duration {
	most := 1.0
	if m.config.Multiplier == 1 {
		most = 0.9
	}
	return time.Duration(float64(d) * (0.75 + m.random()*(most-0.75)))
}

// receiveInterval is the time between the peer's packets.
func (m *machine) receiveInterval() time.Duration { return max(m.rx, m.remote.desiredTx) }

func (m *machine) detectionTime() time.Duration {
	return time.Duration(m.remote.multiplier) * m.receiveInterval()
}

// enter changes the state, and what follows from it.
func (m *machine) enter(now time.Time, state State, why Diagnostic) {
	if m.state == Up {
		m.downs++
		m.failed = true
	}
	if state == Up {
		m.ups++
		m.failed = false
	}
	m.state, m.diagnostic, m.since = state, why, now
	m.urgent = true
	if state == Up {
		m.polling, m.pause = false, false // what was told before is no longer of interest
	}
	m.retime(now)
}

// retime brings the timers that the peer is told in line with configuration and state, by a Poll Sequence (section 6.8.3).
func (m *machine) retime(now time.Time) {
	desiredTx, requiredRx := m.config.Transmit, m.config.Receive
	if m.state != Up {
		desiredTx = max(desiredTx, slowInterval)
	}
	if desiredTx == m.desiredTx && requiredRx == m.requiredRx {
		return
	}
	if m.state == Up && (m.polling || m.pause) {
		m.urgent = m.urgent || m.pause
		return // next or endPoll comes back to it
	}
	before := m.interval()
	m.desiredTx, m.requiredRx = desiredTx, requiredRx
	if m.state == Up {
		// The peer expects the shorter of two transmit intervals as soon as it is told, and may send at the longer of two receive
		// intervals as soon as it is told. The other way round our side waits until the peer has said that it knows.
		m.tx, m.rx = min(m.tx, desiredTx), max(m.rx, requiredRx)
	} else {
		m.tx, m.rx = desiredTx, requiredRx
	}
	m.polling = m.remote.discriminator != 0 && m.state != AdminDown
	m.pause = false
	m.urgent = m.urgent || m.polling
	m.rearm(before)
}

func (m *machine) endPoll(now time.Time) {
	m.polling, m.pause = false, true
	m.tx, m.rx = m.desiredTx, m.requiredRx
	m.retime(now)
}

// rearm sets the next packet's time anew if the interval is no longer what it was.
func (m *machine) rearm(before time.Duration) {
	if now := m.interval(); now != before && !m.sent.IsZero() {
		m.nextTx = m.sent.Add(m.jitter(now))
	}
}
