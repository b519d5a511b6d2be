package speaker

import "time"

const (
	// handOver is how long a speaker answers for an address that it should not announce any more, for want of a successor.
	handOver = 5 * time.Second
	// repair is how long a speaker goes on answering for an address whose rules on this node are gone, until they are back.
	repair = 3 * time.Second
	// patience is how long the elected speaker may take to claim an address before the others elect by hash alone, and nextInLine
	// after which each further candidate is passed over: the elected one may not see the Service, for want of a connection to the
	// API server.
	patience   = 500 * time.Millisecond
	firstLook  = 25 * time.Millisecond
	nextInLine = time.Second
	// retake is how long a speaker does not take back an address that another live one took. It damps a quarrel between speakers that
	// see different configurations.
	retake = 2 * time.Second
	// suspicion is how long an address waits for a second probe when the first was answered.
	suspicion = 500 * time.Millisecond
	// reprobe is how long an address waits that a stranger has.
	reprobe = 30 * time.Second
	// rivalry is how long a losing claim is remembered whose owner is not a live member yet, as when a partition heals.
	rivalry = 5 * time.Second
	// lateStart is how long a starting speaker is given before the others take its addresses.
	lateStart = 5 * time.Second
	// hindsight is how long it may take a speaker that is cut off to lose the last of the others.
	hindsight = 15 * time.Second
	// steady is how long a speaker has to be among the majority until its claims are the majority's.
	steady = 5 * time.Second
	// defence is the time between two answers to rivals for an address; each makes a burst of announcements.
	defence = time.Second
	// reunion is how long a speaker that was cut off from the network waits for the others, and one that met another for more of them.
	reunion = 2 * time.Second
	// carryPatience is how long a starting speaker tells routers nothing because its rules are not in the kernel yet, and settling the time
	// between looks at them. Peers with graceful restart keep the routes for two minutes unless told otherwise.
	carryPatience = time.Minute
	settling      = 100 * time.Millisecond
	// farewell is how long a router is given to see that BGP has ended, before BFD ends: a busy one may see the later first.
	farewell = 500 * time.Millisecond
	// burial is how long a node has to be lost until nothing is shown of it any more.
	burial = 30 * time.Second
	// grief is how long nobody may be allowed to announce an address until users are told, and amends the shortest time until they are
	// told again for another message: nodes come and go, and there may be thousands of Services.
	grief  = 5 * time.Second
	amends = time.Minute
	// housekeeping is the time between looks at what no event announces.
	housekeeping = time.Minute
)
