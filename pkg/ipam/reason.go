package ipam

// Reason is why a Service has its addresses, or why it waits for them. Event reasons, condition reasons and metric labels are
// these words.
type Reason string

const (
	// Assigned: the Service has all that it asked for.
	Assigned Reason = "Assigned"
	// AssignedOneFamily: a PreferDualStack Service has an address of one family and would take one of the other.
	AssignedOneFamily Reason = "AssignedOneFamily"

	// InvalidRequest: an annotation or field of the Service can't be read, or two of them contradict each other.
	InvalidRequest Reason = "InvalidRequest"
	// NoSecondFamily: the Service requires dual stack and has cluster addresses of one family only.
	NoSecondFamily Reason = "NoSecondFamily"
	// UnknownPool: the pool that the Service asks for doesn't exist.
	UnknownPool Reason = "UnknownPool"
	// PoolNotAllowed: the pool that the Service asks for is reserved for other Services.
	PoolNotAllowed Reason = "PoolNotAllowed"
	// WrongFamily: a requested address is of a family that the Service doesn't have.
	WrongFamily Reason = "WrongFamily"
	// OutsidePools: a requested address is in no pool, or not in those that are asked for as well.
	OutsidePools Reason = "OutsidePools"
	// AddressReserved: a requested address is reserved for others, or for nobody.
	AddressReserved Reason = "AddressReserved"
	// AvoidedAddress: a requested address ends in .0 or .255 and its pool has avoidBuggyIPs.
	AvoidedAddress Reason = "AvoidedAddress"
	// AddressTaken: another Service has a requested address, and the two have not agreed to share it.
	AddressTaken Reason = "AddressTaken"
	// CannotShare: another Service has a requested address with the same key for sharing, but the two don't fit together.
	CannotShare Reason = "CannotShare"
	// NoPools: there is no pool at all.
	NoPools Reason = "NoPools"
	// NoPoolForService: there are pools, but none that gives this Service an address unasked.
	NoPoolForService Reason = "NoPoolForService"
	// FamilyUnavailable: no pool that the Service may use has ranges of its families.
	FamilyUnavailable Reason = "FamilyUnavailable"
	// PoolExhausted: every pool that the Service may use is full.
	PoolExhausted Reason = "PoolExhausted"
	// QuotaExceeded: the Service's namespace has all the addresses that it may have.
	QuotaExceeded Reason = "QuotaExceeded"
)

// Satisfied tells whether the Service has what it asked for, the lesser wish of PreferDualStack included.
func (r Reason) Satisfied() bool { return r == Assigned || r == AssignedOneFamily }

// refusal is why a Service can't have what it asks for. The message says how to mend it.
type refusal struct {
	reason  Reason
	message string
}
