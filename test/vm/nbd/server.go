package nbd

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

// The numbers of the protocol.
const (
	magic       = 0x4e42444d41474943 // NBDMAGIC
	optionMagic = 0x49484156454f5054 // IHAVEOPT
	replyMagic  = 0x0003e889045565a9
	askMagic    = 0x25609513
	answerMagic = 0x67446698

	fixedNewstyle, noZeroes = 1, 2

	optExportName, optAbort, optInfo, optGo = 1, 2, 6, 7
	repAck, repInfo, repUnsupported         = 1, 3, 1<<31 | 1
	infoExport                              = 0

	// The disk has a cache, can flush it, write through it, forget and clear.
	flags = 1 | 1<<2 | 1<<3 | 1<<5 | 1<<6

	cmdRead, cmdWrite, cmdDisconnect, cmdFlush, cmdTrim, cmdZeroes = 0, 1, 2, 3, 4, 6
	flagThrough                                                    = 1
	ioError                                                        = 5
	maxRequest                                                     = 64 << 20
)

// Serve answers on a socket until it is closed.
func (d *Disk) Serve(l net.Listener) {
	var all sync.WaitGroup
	defer all.Wait()
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		all.Go(func() {
			defer conn.Close()
			_ = d.serve(conn) // the machine has gone away
		})
	}
}

func (d *Disk) serve(conn net.Conn) error {
	in, out := bufio.NewReaderSize(conn, 1<<20), bufio.NewWriterSize(conn, 1<<20)
	if err := d.negotiate(in, out); err != nil {
		return err
	}
	for {
		var ask struct {
			Magic       uint32
			Flags, Type uint16
			Handle      uint64
			At          uint64
			Length      uint32
		}
		if err := binary.Read(in, binary.BigEndian, &ask); err != nil {
			return err
		}
		if ask.Magic != askMagic || ask.Length > maxRequest {
			return errors.New("a request makes no sense")
		}
		data := make([]byte, ask.Length)
		var err error
		switch ask.Type {
		case cmdRead:
			err = d.readAt(data, int64(ask.At))
		case cmdWrite:
			if _, err := io.ReadFull(in, data); err != nil {
				return err
			}
			err = d.writeAt(data, int64(ask.At), ask.Flags&flagThrough != 0)
		case cmdZeroes:
			err = d.writeAt(data, int64(ask.At), ask.Flags&flagThrough != 0)
		case cmdFlush:
			err = d.flush()
		case cmdTrim: // what is forgotten need not be gone
		case cmdDisconnect:
			return nil
		default:
			err = fmt.Errorf("command %d", ask.Type)
		}
		code := uint32(0)
		if err != nil {
			code = ioError
		}
		if err := write(out, uint32(answerMagic), code, ask.Handle); err != nil {
			return err
		}
		if ask.Type == cmdRead && code == 0 {
			if _, err := out.Write(data); err != nil {
				return err
			}
		}
		// Answers are gathered while there are more questions.
		if in.Buffered() == 0 {
			if err := out.Flush(); err != nil {
				return err
			}
		}
	}
}

func write(w io.Writer, values ...any) error {
	for _, v := range values {
		if err := binary.Write(w, binary.BigEndian, v); err != nil {
			return err
		}
	}
	return nil
}

// negotiate goes through options until the client has chosen the disk.
func (d *Disk) negotiate(in *bufio.Reader, out *bufio.Writer) error {
	if err := errors.Join(write(out, uint64(magic), uint64(optionMagic), uint16(fixedNewstyle|noZeroes)), out.Flush()); err != nil {
		return err
	}
	var client uint32
	if err := binary.Read(in, binary.BigEndian, &client); err != nil {
		return err
	}
	for {
		var option struct {
			Magic          uint64
			Option, Length uint32
		}
		if err := binary.Read(in, binary.BigEndian, &option); err != nil {
			return err
		}
		if option.Magic != optionMagic || option.Length > maxRequest {
			return errors.New("an option makes no sense")
		}
		if _, err := io.CopyN(io.Discard, in, int64(option.Length)); err != nil {
			return err
		}
		var err error
		chosen := false
		switch option.Option {
		case optExportName:
			chosen, err = true, write(out, uint64(d.size), uint16(flags))
			if client&noZeroes == 0 {
				err = errors.Join(err, write(out, make([]byte, 124)))
			}
		case optInfo, optGo:
			chosen = option.Option == optGo
			err = write(out,
				uint64(replyMagic), option.Option, uint32(repInfo), uint32(12), uint16(infoExport), uint64(d.size), uint16(flags),
				uint64(replyMagic), option.Option, uint32(repAck), uint32(0))
		case optAbort:
			return errors.New("the client has gone")
		default:
			err = write(out, uint64(replyMagic), option.Option, uint32(repUnsupported), uint32(0))
		}
		if err = errors.Join(err, out.Flush()); err != nil || chosen {
			return err
		}
	}
}
