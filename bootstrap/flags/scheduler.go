package flags

func scheduler(in Input) *list {
	l := &list{}
	l.singleton(in.Paths, "scheduler")
	return l
}
