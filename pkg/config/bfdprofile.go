package config

import (
	"fmt"
	"time"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
)

// parseBFDProfiles returns the profiles by name; one that has a fault is nil.
func parseBFDProfiles(resources []v1beta1.BFDProfile) (map[string]*BFDProfile, []Fault) {
	profiles := map[string]*BFDProfile{}
	var faults []Fault
	for i := range resources {
		res := &resources[i]
		f := complaints{kind: KindBFDProfile, name: res.Name}
		profile := parseBFDProfile(res, &f)
		if f.harmful {
			profile = nil
		}
		profiles[res.Name] = profile
		faults = append(faults, f.faults...)
	}
	return profiles, faults
}

func parseBFDProfile(res *v1beta1.BFDProfile, f *complaints) *BFDProfile {
	spec := &res.Spec
	number := func(field string, value *uint32, fallback, least, most uint32) uint32 {
		if value == nil {
			return fallback
		}
		if *value < least || *value > most {
			f.fault(field, ReasonInvalidValue, fmt.Sprintf("%d is not possible: write %d to %d", *value, least, most))
		}
		return *value
	}
	milliseconds := func(field string, value *uint32) time.Duration {
		return time.Duration(number(field, value, 300, 10, 60000)) * time.Millisecond
	}
	profile := &BFDProfile{
		Name:       res.Name,
		Receive:    milliseconds("spec.receiveInterval", spec.ReceiveInterval),
		Transmit:   milliseconds("spec.transmitInterval", spec.TransmitInterval),
		Multiplier: uint8(number("spec.detectMultiplier", spec.DetectMultiplier, 3, 2, 255)),
		Passive:    spec.PassiveMode != nil && *spec.PassiveMode,
		MinimumTTL: uint8(number("spec.minimumTtl", spec.MinimumTTL, 254, 1, 254)),
	}
	if spec.EchoMode != nil && *spec.EchoMode {
		f.warn("spec.echoMode", ReasonEchoNotUsed,
			"echo packets are not sent, all else of the profile is in use: to notice failures sooner, lower transmitInterval and receiveInterval")
	}
	return profile
}
