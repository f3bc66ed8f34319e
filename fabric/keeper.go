package fabric

// deliver hands a completion to whoever waits for it. The caller holds the harvester role.
func (c *Conn) deliver(d completion) {
	s := &c.slots[d.slot]
	if k := s.call; k != nil {
		s.call = nil
		n, err := c.finish(s, d, k.result[:cap(k.result)])
		k.result, k.err = k.result[:n], err
		c.inFlight.Add(-1)
		close(k.done)
		return
	}
	c.inFlight.Add(-1)
	if s.state.CompareAndSwap(waiting, delivered) {
		s.done <- d
	} else {
		c.release(s)
	}
}

// handOver gives the harvester role back, or to the keeper while requests are in flight. Whoever submits counts its request
// before it looks at the role, and the role is given back before the count is looked at again: one of the two sees the other.
func (c *Conn) handOver() {
	if c.inFlight.Load() == 0 {
		c.harvester.Store(false)
		if c.inFlight.Load() == 0 || !c.harvester.CompareAndSwap(false, true) {
			return
		}
	}
	c.keeping.Store(true)
	c.h.kick()
}

// keep looks after the control connection, and harvests while it holds the role.
func (c *Conn) keep() {
	defer close(c.ended)
	gone := false
	for {
		if c.keeping.Load() {
			c.harvest()
		}
		if c.closed.Load() && c.inFlight.Load() == 0 {
			if !gone {
				close(c.gone)
			}
			return
		}
		woke := c.h.sleep(c.keeping.Load())
		if !gone && (woke == 0 || woke&wokeControl != 0) && c.h.control() {
			gone = true
			close(c.gone)
		}
	}
}

// harvest delivers what has come and drops the role when nothing is in flight.
func (c *Conn) harvest() {
	for _, d := range c.h.progress(max(c.spin, 0)) {
		c.deliver(d)
	}
	if c.inFlight.Load() > 0 {
		return
	}
	c.keeping.Store(false)
	c.harvester.Store(false)
	if c.inFlight.Load() > 0 && c.harvester.CompareAndSwap(false, true) {
		c.keeping.Store(true)
	}
}
